#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes vectors.json: what protobuf's own JSON mapping for Python makes of every.proto.

usage: tests/lab/toolbox.sh run python3 tests/unit/proto/json/make_vectors.py

Each vector is one of: "both" (wire and json are the same message, either way), "print" (wire to json only),
"parse" (json to wire only), "reject" (Python refuses the json too). The test does what the vector says.
"""
import json
import os
import subprocess
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

HERE = os.path.dirname(os.path.abspath(__file__))


def load():
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", "--include_imports", f"--descriptor_set_out={out.name}", f"-I{HERE}",
                        f"{HERE}/every.proto"], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool, message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("haul.test.Every"))


POOL, EVERY = load()

# As protobuf's JSON, to be read and printed by Python.
BOTH = """
{}
{"aDouble": 1.5}
{"aDouble": 0.1}
{"aDouble": 0.30000000000000004}
{"aDouble": -2.2250738585072014e-308}
{"aDouble": 5e-324}
{"aDouble": 1.7976931348623157e308}
{"aDouble": "NaN"}
{"aDouble": "Infinity"}
{"aDouble": "-Infinity"}
{"aFloat": 0.1}
{"aFloat": 16777216}
{"aFloat": 1e-45}
{"aFloat": "NaN"}
{"aFloat": "-Infinity"}
{"anInt32": 2147483647}
{"anInt32": -2147483648}
{"anInt64": "9223372036854775807"}
{"anInt64": "-9223372036854775808"}
{"anInt64": "9007199254740993"}
{"aUint32": 4294967295}
{"aUint64": "18446744073709551615"}
{"aSint32": -2147483648}
{"aSint32": 2147483647}
{"aSint64": "-9223372036854775808"}
{"aSint64": "1"}
{"aFixed32": 4294967295}
{"aFixed64": "18446744073709551615"}
{"aSfixed32": -1}
{"aSfixed64": "-1"}
{"aBool": true}
{"aString": "plain"}
{"aString": "quotes \\" and \\\\ and \\n and \\u0001"}
{"aString": "\u00fcml\u00e4ut \u20ac \U0001f600"}
{"aString": "\\ud83d\\ude00"}
{"someBytes": "AAEC/f7/"}
{"someBytes": "AA=="}
{"someBytes": "AAE="}
{"colour": "GREEN"}
{"colour": "BELOW"}
{"colour": 77}
{"inner": {}}
{"inner": {"text": "a", "deeper": {"deeper": {"text": "b"}}, "numbers": [-1, 0, 1, 2147483647, -2147483648]}}
{"doubles": [0, 1.25, "NaN", "-Infinity"]}
{"int32s": [0, -1, 1, 300]}
{"uint64s": ["0", "18446744073709551615"]}
{"bools": [true, false, true]}
{"strings": ["", "a", "b"]}
{"byteses": ["", "AA==", "/w=="]}
{"colours": ["NO_COLOUR", "RED", 9, "BELOW"]}
{"inners": [{}, {"text": "x"}, {"deeper": {}}]}
{"loose": [1, 2, 4294967295]}
{"byName": ""}
{"byName": "n"}
{"byNumber": 0}
{"byNumber": 7}
{"byInner": {"text": "i"}}
{"maybeInt32": 0}
{"maybeInt32": -5}
{"maybeString": ""}
{"byText": {"": "0", "a": "1", "b\\"c": "-1"}}
{"byInt32": {"-1": {}, "0": {"text": "zero"}, "2147483647": {"deeper": {}}}}
{"byBool": {"false": "f", "true": "t"}}
{"byUint64": {"0": "NO_COLOUR", "18446744073709551615": "RED"}}
{"at": "1970-01-01T00:00:00Z"}
{"at": "0001-01-01T00:00:00Z"}
{"at": "9999-12-31T23:59:59.999999999Z"}
{"at": "2024-02-29T23:59:59.100Z"}
{"at": "1969-12-31T23:59:59.000001Z"}
{"at": "2000-02-29T00:00:00.000000001Z"}
{"at": "1900-03-01T12:34:56Z"}
{"took": "0s"}
{"took": "1.500s"}
{"took": "-1.500s"}
{"took": "-0.000001s"}
{"took": "0.000000001s"}
{"took": "315576000000s"}
{"took": "-315576000000s"}
{"tooks": ["1s", "0s", "-3.250s"]}
{"any": {}}
{"any": {"@type": "type.googleapis.com/haul.test.Every.Inner"}}
{"any": {"@type": "type.googleapis.com/haul.test.Every.Inner", "text": "a", "numbers": [1, -1]}}
{"any": {"@type": "example.org/x/haul.test.Every", "anInt64": "5", "any": {"@type": "a/haul.test.Every.Inner"}}}
{"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.500s"}}
{"any": {"@type": "type.googleapis.com/google.protobuf.Timestamp", "value": "1970-01-01T00:00:00Z"}}
{"any": {"@type": "type.googleapis.com/google.protobuf.Int64Value", "value": "7"}}
{"any": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": ""}}
{"any": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": [1, null]}}}
{"any": {"@type": "type.googleapis.com/google.protobuf.Value", "value": "text"}}
{"any": {"@type": "type.googleapis.com/google.protobuf.ListValue", "value": [{}, []]}}
{"any": {"@type": "type.googleapis.com/google.protobuf.FieldMask", "value": "a.bC"}}
{"any": {"@type": "a/google.protobuf.Any", "value": {"@type": "b/haul.test.Every.Inner", "text": "t"}}}
{"anys": [{"@type": "a/haul.test.Every.Inner", "text": "1"}, {}]}
{"byStruct": {}}
{"byStruct": {"": null, "a": 1.5, "b": "t", "c": true, "d": false, "e": {"f": {}}, "g": [1, [2, []], {"h": null}]}}
{"value": null}
{"value": 0}
{"value": -1.25e10}
{"value": ""}
{"value": "NaN"}
{"value": true}
{"value": false}
{"value": {}}
{"value": {"a": null}}
{"value": []}
{"value": [null, 1, "x", [], {}]}
{"list": []}
{"list": [null, {"a": [0]}]}
{"values": [null, 1, "a", false, {}, []]}
{"mask": ""}
{"mask": "a"}
{"mask": ","}
{"mask": "a,,b"}
{"mask": "AB,c1"}
{"mask": "fooBar.baz,x.yZ"}
{"aDoubleValue": 0}
{"aDoubleValue": "NaN"}
{"aFloatValue": 1.5}
{"anInt64Value": "-9223372036854775808"}
{"aUint64Value": "18446744073709551615"}
{"anInt32Value": 0}
{"anInt32Value": -7}
{"aUint32Value": 4294967295}
{"aBoolValue": false}
{"aBoolValue": true}
{"aStringValue": ""}
{"aStringValue": "s"}
{"aBytesValue": ""}
{"aBytesValue": "AAE="}
{"int32Values": [0, 1, -1]}
{"byValue": {"a": "", "b": "x"}}
{"oddName2x": "o"}
{"@other": "o"}
{"UpperCase": "u"}
"""

# Only read: other ways to say the same, and defaults.
PARSE = """
{"an_int32": 1, "a_string": "original names"}
{"own_json_name": "x"}
{"odd__name_2x": "x"}
{"anInt32": 0, "aString": "", "someBytes": "", "colour": "NO_COLOUR", "doubles": [], "byText": {}}
{"anInt32": null, "inner": null, "int32s": null, "byText": null, "at": null, "byName": null, "byNumber": 1}
{"anInt32": "12", "aUint32": "13", "aSint32": "-16", "aFixed32": "14", "aSfixed32": "-15"}
{"anInt32": 1e2, "aUint32": 1.0}
{"anInt64": 12, "aUint64": 9007199254740992, "aSint64": -9007199254740992, "aFixed64": 1}
{"aDouble": "1.5", "aFloat": "-2.5e1"}
{"aDouble": 1, "aFloat": 2}
{"aFloat": 3.4028234663852886e38}
{"someBytes": "-_-_"}
{"someBytes": "+/+/"}
{"someBytes": "AA"}
{"colour": 2}
{"colours": [0, 1, "GREEN"]}
{"byUint64": {"3": 1}}
{"at": "2024-02-29T23:59:59.1Z"}
{"at": "2024-03-01T01:30:00+01:30"}
{"at": "2024-02-29T20:00:00.5-04:00"}
{"took": "1.5s"}
{"took": "3.000000001s"}
{"value": 1e2}
{"aDoubleValue": "1.5", "anInt64Value": 5, "anInt32Value": "5"}
{"anInt32Value": null, "any": null, "byStruct": null, "mask": null, "list": null, "nothing": null}
{"nothing": "NULL_VALUE"}
{"any": {"text": "the type may follow", "@type": "a/haul.test.Every.Inner"}}
 \\t\\n{ "aBool" : true , "bools" : [ true ] } \\n
"""

REJECT = """
{
"text"
{"noSuchField": 1}
{"inner": {"noSuchField": 1}}
{"anInt32": 1, "anInt32": 2}
{"byText": {"a": "1", "a": "2"}}
{"byName": "a", "byNumber": 1}
{"anInt32": 2147483648}
{"anInt32": -2147483649}
{"anInt32": 1.5}
{"anInt32": "1.5"}
{"anInt32": "x"}
{"anInt32": ""}
{"anInt32": true}
{"anInt32": []}
{"aUint32": -1}
{"aUint32": "-1"}
{"aUint32": 4294967296}
{"anInt64": "9223372036854775808"}
{"anInt64": "-9223372036854775809"}
{"aUint64": "18446744073709551616"}
{"aUint64": "-1"}
{"aDouble": 1e999}
{"aDouble": "x"}
{"aDouble": ""}
{"aDouble": {}}
{"aFloat": 3.5e38}
{"aBool": 1}
{"aBool": "true"}
{"aString": 1}
{"aString": ["a"]}
{"aString": "\\ud83d"}
{"aString": "cut off}
{"someBytes": 1}
{"someBytes": "A"}
{"colour": "PURPLE"}
{"colour": 2147483648}
{"inner": "x"}
{"int32s": 1}
{"int32s": [null]}
{"inners": [null]}
{"int32s": {"0": 1}}
{"byText": []}
{"byText": {"a": null}}
{"byInt32": {"x": {}}}
{"byInt32": {"2147483648": {}}}
{"byBool": {"yes": "x"}}
{"byUint64": {"-1": "RED"}}
{"at": "2024-02-30T00:00:00Z"}
{"at": "2023-02-29T00:00:00Z"}
{"at": "2024-13-01T00:00:00Z"}
{"at": "2024-01-01T24:00:00Z"}
{"at": "2024-01-01T00:60:00Z"}
{"at": "2024-01-01 00:00:00Z"}
{"at": "2024-01-01T00:00:00"}
{"at": "2024-01-01T00:00:00.1234567891Z"}
{"at": "0000-01-01T00:00:00Z"}
{"at": 1}
{"took": "1"}
{"took": "1.5"}
{"took": "315576000001s"}
{"took": "-315576000001s"}
{"took": "xs"}
{"took": 1}
{"any": 1}
{"any": {"text": "no type"}}
{"any": {"@type": 1}}
{"any": {"@type": "haul.test.Every.Inner"}}
{"any": {"@type": "a/haul.test.NoSuch"}}
{"any": {"@type": "a/haul.test.Every.Inner", "noSuchField": 1}}
{"any": {"@type": "a/google.protobuf.Duration", "value": "x"}}
{"byStruct": []}
{"byStruct": 1}
{"list": {}}
{"mask": 1}
{"mask": "foo_bar"}
{"anInt32Value": "x"}
{"anInt32Value": {}}
{"anInt32Value": {"value": 1}}
{"aBoolValue": 1}
{"aStringValue": 1}
{"int32Values": [null]}
{"byValue": {"a": null}}
{"anInt32": 1} x
"""

# Wire that no encoder of ours writes: unpacked, in pieces, out of order, unknown, repeated.
WIRE = [
    # A list of numbers, loose, packed, and both.
    "b00101b00102", "b2010101b00102b2010103", "b201020102",
    # A scalar again and again, and back to its default; a number that is longer than it need be.
    "180118021803", "18011800", "18ffffffffffffffffff01", "188180808000",
    # A message in two pieces is joined, and so is a moment.
    "8a01030a01618a010512030a0162", "8a01030a01618a01030a0162", "ea03020805ea03021005",
    # Of a oneof the last one holds.
    "fa010161800207", "8a02030a0161fa0101788a02020a00",
    # Unknown fields of every kind; a known number with another kind of value is unknown too.
    "f83f01fa3f0141fd3f01020304f93f01020304050607081805", "1a0161", "7001", "0d00000000",
    # Entries of maps without their key or value, and a key that comes twice.
    "9a0300", "9a03021001", "9a03030a0161", "9a03050a016110019a03050a01611002", "a203020805", "a20300",
    "aa0300", "aa03020801", "b203020807",
    # Moments.
    "ea0300", "f20300", "f203020803", "f20305080310e807",
    # -0.0, and an enum and a 32-bit number whose varint has more than 32 bits.
    "090000000000000080", "8001ffffffffffffffffff01", "28ffffffffffffffffff01",
    # Not well-formed.
    "28", "680268", "9a03020a01", "fa01", "2bff", "18ffffffffffffffffffff01", "72ffffffff0f00",
    "0901020304", "b20102ff", "7202c328",
]

# Read and written one behind the other: what is there twice is joined.
JOINED = [
    ('{"any": {"@type": "a/haul.test.Every.Inner", "text": "a"}}', '{"any": {"@type": "b/haul.test.Every"}}'),
    ('{"byStruct": {"a": 1, "b": [1]}}', '{"byStruct": {"b": "x", "c": null}}'),
    ('{"value": {"a": 1}}', '{"value": {"b": 2}}'),
    ('{"value": [1]}', '{"value": [2.5, "NaN"]}'),
    ('{"value": 1}', '{"value": "x"}'),
    ('{"value": "x"}', '{"value": null}'),
    ('{"list": [1]}', '{"list": [null]}'),
    ('{"mask": "a,bC"}', '{"mask": "d"}'),
    ('{"anInt32Value": 5}', '{"anInt32Value": 0}'),
    ('{"anInt32Value": 5}', '{"anInt32Value": 6}'),
    ('{"aStringValue": "x"}', '{"aStringValue": "y"}'),
]


def dump(message, **options):
    return json_format.MessageToJson(message, indent=None, sort_keys=False, descriptor_pool=POOL, **options)


def read(text):
    return json_format.Parse(text, EVERY(), descriptor_pool=POOL)


def both(text):
    message = read(text)
    # Maps have no order in Python's JSON; on the wire they have that of their keys, as in the text.
    printed = json.loads(dump(message))
    for name, value in json.loads(text).items():
        if isinstance(value, dict) and name.startswith("by"):
            printed[name] = {key: printed[name][key] for key in value}
    return {"kind": "both", "json": json.dumps(printed), "wire": message.SerializeToString(deterministic=True).hex(),
            "defaults": dump(message, including_default_value_fields=True)}


def parse(text):
    return {"kind": "parse", "json": text,
            "wire": read(text).SerializeToString(deterministic=True).hex()}


def reject(text):
    try:
        read(text)
    except json_format.ParseError:
        return {"kind": "reject", "json": text}
    print("python takes it:", text)
    return None


def from_wire(wire):
    try:
        message = EVERY.FromString(bytes.fromhex(wire))
    except Exception as error:  # not well-formed: said, and so to us
        print("python refuses the wire:", wire, error)
        return {"kind": "reject_wire", "wire": wire}
    return {"kind": "print", "wire": wire, "json": dump(message)}


def joined(texts):
    return from_wire(b"".join(read(text).SerializeToString(deterministic=True) for text in texts).hex())


def without_json():
    """Messages that Python reads from the wire, and does not print."""
    messages = [EVERY() for _ in range(4)]
    messages[0].any.type_url = "a/haul.test.NoSuch"
    messages[1].any.type_url, messages[1].any.value = "a/haul.test.Every.Inner", b"\x0a"
    messages[2].mask.paths.append("UpperCase")
    messages[3].any.value = b"x"
    for message in messages:
        try:
            dump(message)
        except Exception:
            yield {"kind": "reject_wire", "wire": message.SerializeToString().hex()}
        else:
            print("python prints", message)


def attempt(function, value):
    try:
        return function(value)
    except Exception as error:
        print(function.__name__, "failed on", value, ":", error)
        return None


def main():
    vectors = [attempt(both, line) for line in BOTH.strip().splitlines()]
    vectors += [attempt(parse, line.replace("\\t", "\t").replace("\\n", "\n") if line.startswith(" ") else line)
                for line in PARSE.strip("\n").splitlines()]
    vectors += [attempt(reject, line) for line in REJECT.strip().splitlines()]
    vectors += [attempt(from_wire, wire) for wire in WIRE]
    vectors += [attempt(joined, texts) for texts in JOINED]
    vectors += without_json()
    with open(f"{HERE}/vectors.json", "w", encoding="ascii") as out:
        out.write("[\n" + ",\n".join(json.dumps(vector) for vector in vectors if vector) + "\n]\n")


if __name__ == "__main__":
    main()
