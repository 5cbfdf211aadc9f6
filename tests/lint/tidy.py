#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over every C file of ours that a build compiles, two at a time.

usage: tidy.py BUILD [FILE…]

A file that was clean is not looked at again until it, a header it includes, its flags, .clang-tidy or
clang-tidy itself changes. That memory is in $HAUL_CACHE/tidy (default ~/.cache/haul-lab/tidy), or in
BUILD/tidy where that cannot be written.
"""
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]


def cache_dir(build):
    cache = os.environ.get("HAUL_CACHE")
    if not cache and not os.environ.get("HOME"):
        return build / "tidy"
    path = pathlib.Path(cache or os.environ["HOME"] + "/.cache/haul-lab")
    # Only where the lab already keeps its things: in a throw-away root the build directory lasts longer.
    return path / "tidy" if path.is_dir() and os.access(path, os.W_OK) else build / "tidy"


def our_commands(build):
    """File → its compile command, without generated code."""
    commands = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        if path.is_relative_to(TREE) and not path.is_relative_to(TREE / "build"):
            if not path.is_relative_to(build) and path.exists():
                commands[path] = entry
    return commands


@functools.lru_cache(maxsize=None)
def digest_of(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def dependencies(entry):
    """Every file that the compiler reads for this one."""
    words = shlex.split(entry["command"])
    if "-o" in words:
        at = words.index("-o")
        del words[at : at + 2]
    made = subprocess.run(words + ["-M"], cwd=entry["directory"], capture_output=True, text=True)
    if made.returncode != 0:
        return None
    return made.stdout.partition(":")[2].replace("\\\n", " ").split()


def key_of(entry, base):
    files = dependencies(entry)
    if files is None:
        return None
    key = hashlib.sha256(base)
    # Sanitizers and build directories do not change what is found.
    key.update(entry["command"].replace(entry["directory"], "").encode())
    for name in sorted(set(files)):
        path = os.path.join(entry["directory"], name)
        key.update(os.path.basename(name).encode() + digest_of(path).encode())
    return key.hexdigest()


def check(path, entry, build, cache, base):
    key = key_of(entry, base)
    if key and (cache / key).exists():
        (cache / key).touch()
        return "known", ""
    # gcc's warnings are errors in the build; clang's are another set.
    done = subprocess.run(
        ["clang-tidy", "--quiet", "--extra-arg=-Wno-error", "-p", str(build), str(path)], cwd=TREE, capture_output=True, text=True
    )
    if done.returncode != 0:
        return "bad", done.stdout + "\n".join(line for line in done.stderr.splitlines() if "error" in line)
    if key:
        (cache / key).touch()
    return "good", ""


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    cache = cache_dir(build)
    cache.mkdir(parents=True, exist_ok=True)
    commands = our_commands(build)
    if len(sys.argv) > 2:
        chosen = {pathlib.Path(name).resolve() for name in sys.argv[2:]}
        commands = {path: entry for path, entry in commands.items() if path in chosen}
    if not commands:
        sys.exit("tidy.py: nothing to look at")
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout
    base = version + b"".join((TREE / name).read_bytes() for name in (".clang-tidy", "tests/.clang-tidy"))
    count = {"known": 0, "good": 0, "bad": 0}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        jobs = {pool.submit(check, path, entry, build, cache, base): path for path, entry in commands.items()}
        for job in concurrent.futures.as_completed(jobs):
            verdict, text = job.result()
            count[verdict] += 1
            if verdict == "bad":
                print(f"--- {jobs[job].relative_to(TREE)}\n{text.strip()}", flush=True)
    print(f"{count['good']} clean, {count['known']} clean as before, {count['bad']} to mend")
    sys.exit(1 if count["bad"] else 0)


main()
