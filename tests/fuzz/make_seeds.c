/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the seed corpus: one well-formed input for every format, so that fuzzing starts behind the
 * first checks. usage: fuzz_seeds tests/fuzz/corpus */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "criu/rpc.pb-c.h"
#include "engine/criu/image_records.h"
#include "engine/criu/page_stream.h"
#include "engine/criu/pagemap.h"
#include "haul/v1/journal.pb-c.h"
#include "haul/v1/pipe.pb-c.h"
#include "memfd.pb-c.h"
#include "mm.pb-c.h"
#include "proto/envelope.h"
#include "proto/metadata.h"
#include "proto/schema.h"

enum { SEED_MOST = 32768 };

struct seed {
	uint8_t data[SEED_MOST];
	size_t size;
};

static void add(struct seed *seed, const void *data, size_t size)
{
	if (seed->size + size > SEED_MOST)
		abort();
	if (size > 0)
		memcpy(seed->data + seed->size, data, size);
	seed->size += size;
}

static void add_text(struct seed *seed, const char *text)
{
	add(seed, text, strlen(text));
}

static void add_message(struct seed *seed, const ProtobufCMessage *message)
{
	uint8_t packed[SEED_MOST];

	if (protobuf_c_message_get_packed_size(message) > sizeof(packed))
		abort();
	add(seed, packed, protobuf_c_message_pack(message, packed));
}

/* With its length before it: fuzz_piece. */
static void add_piece(struct seed *seed, const struct seed *piece, size_t head)
{
	uint8_t length[2] = {(uint8_t)piece->size, (uint8_t)(piece->size >> 8)};

	add(seed, length, head);
	add(seed, piece->data, piece->size);
}

static void write_seed(const char *corpus, const char *target, const char *name,
		       const struct seed *seed)
{
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/%s", corpus, target);
	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		abort();
	(void)snprintf(path, sizeof(path), "%s/%s/%s", corpus, target, name);
	FILE *file = fopen(path, "we");
	if (file == NULL || fwrite(seed->data, 1, seed->size, file) != seed->size ||
	    fclose(file) != 0) {
		perror(path);
		exit(1);
	}
}

static void write_text(const char *corpus, const char *target, const char *name, const char *text)
{
	struct seed seed = {.size = 0};

	add_text(&seed, text);
	write_seed(corpus, target, name, &seed);
}

static void envelope(const char *corpus)
{
	struct seed seed = {.size = 0};
	uint8_t id[REQUEST_ID_BYTES] = {7};
	Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
	Haul__V1__Reply reply = HAUL__V1__REPLY__INIT;

	request.version = ENVELOPE_VERSION;
	request.method = (char *)"/haul.v1.Peer/Query";
	request.request_id = (ProtobufCBinaryData){sizeof(id), id};
	request.timeout_ms = 1000;
	request.payload = (ProtobufCBinaryData){3, (uint8_t *)"\n\001a"};
	add_message(&seed, &request.base);
	write_seed(corpus, "envelope", "request", &seed);
	request.metadata = metadata_new();
	status_free(metadata_add(request.metadata, "traceparent", "00-af-b7-01"));
	status_free(metadata_add(request.metadata, "x-team", "storage"));
	seed.size = 0;
	add_message(&seed, &request.base);
	write_seed(corpus, "envelope", "request-metadata", &seed);
	Haul__V1__Request cancel = HAUL__V1__REQUEST__INIT;
	cancel.version = ENVELOPE_VERSION;
	cancel.cancels = request.request_id;
	seed.size = 0;
	add_message(&seed, &cancel.base);
	write_seed(corpus, "envelope", "request-cancel", &seed);
	scoped(status) status *st =
	    status_detailf(status_errorf(STATUS_ABORTED, "it died"), "next", "again");
	reply.version = ENVELOPE_VERSION;
	reply.status = status_to_wire(st);
	seed.size = 0;
	add_message(&seed, &reply.base);
	write_seed(corpus, "envelope", "reply", &seed);
	reply.trailing = request.metadata;
	status_free(metadata_add_reserved(reply.trailing, "haul-took-us", "1234"));
	seed.size = 0;
	add_message(&seed, &reply.base);
	write_seed(corpus, "envelope", "reply-trailing", &seed);
	metadata_free(reply.trailing);
	seed.size = 0;
	add_message(&seed, &reply.status->base);
	write_seed(corpus, "envelope", "status", &seed);
	haul__v1__status__free_unpacked(reply.status, NULL);
}

/* A frame: its kind, and the message if it has one. */
static void add_frame(struct seed *seed, uint8_t kind, const ProtobufCMessage *message)
{
	struct seed frame = {.size = 0};

	add(&frame, &kind, 1);
	if (message != NULL)
		add_message(&frame, message);
	add_piece(seed, &frame, 2);
}

/* What a client sends, and what a server sends. */
static void streams(const char *corpus)
{
	struct seed client = {.size = 0}, server = {.size = 0};
	Haul__V1__StreamCredit credit = HAUL__V1__STREAM_CREDIT__INIT;
	Haul__V1__RoundEnd event = HAUL__V1__ROUND_END__INIT;
	Haul__V1__PipeEnd end = HAUL__V1__PIPE_END__INIT;
	scoped(metadata) Haul__V1__Metadata *metadata = metadata_new();
	scoped(status) status *st = status_errorf(STATUS_ABORTED, "it died");

	status_free(metadata_add(metadata, "x-team", "storage"));
	event.round = 7;
	end.trailing = metadata;
	add(&client, "\x01", 1);
	add_frame(&client, HAUL__V1__FRAME_KIND__FRAME_METADATA, &metadata->base);
	add_frame(&client, HAUL__V1__FRAME_KIND__FRAME_EVENT, &event.base);
	add_frame(&client, HAUL__V1__FRAME_KIND__FRAME_KEEPALIVE, NULL);
	add_frame(&client, HAUL__V1__FRAME_KIND__FRAME_CREDIT, &credit.base);
	add_frame(&client, HAUL__V1__FRAME_KIND__FRAME_HALF_CLOSE, NULL);
	add_frame(&client, HAUL__V1__FRAME_KIND__FRAME_END, &end.base);
	write_seed(corpus, "stream", "client", &client);
	end.status = status_to_wire(st);
	end.messages = 3;
	add(&server, "\x02", 1);
	for (int i = 0; i < 3; i++)
		add_frame(&server, HAUL__V1__FRAME_KIND__FRAME_EVENT, &event.base);
	add_frame(&server, HAUL__V1__FRAME_KIND__FRAME_END, &end.base);
	write_seed(corpus, "stream", "server", &server);
	haul__v1__status__free_unpacked(end.status, NULL);
}

static void criu(const char *corpus)
{
	struct seed seed = {.size = 0};
	CriuResp response = CRIU_RESP__INIT;
	CriuNotify notify = CRIU_NOTIFY__INIT;

	response.type = CRIU_REQ_TYPE__NOTIFY;
	response.success = 1;
	notify.script = (char *)"post-dump";
	notify.has_pid = 1;
	notify.pid = 42;
	response.notify = &notify;
	add_message(&seed, &response.base);
	write_seed(corpus, "criu_reply", "notify", &seed);
	response = (CriuResp)CRIU_RESP__INIT;
	response.type = CRIU_REQ_TYPE__DUMP;
	response.has_cr_errno = 1;
	response.cr_errno = 17;
	response.cr_errmsg = (char *)"Error (criu/cr-dump.c:1): Dumping FAILED.";
	seed.size = 0;
	add_message(&seed, &response.base);
	write_seed(corpus, "criu_reply", "failed", &seed);
	write_text(corpus, "criu_log", "log",
		   "(00.001) Version: 4.1.1\n(00.002) Warn  (criu/kerndat.c:1): no\n"
		   "(00.004) Error (criu/files.c:2): Can't dump file 3\n(00.005) Error "
		   "(criu/cr-dump.c:3): Dumping FAILED.\n");
	/* Magics, length, Stats{dump{freezing_time=1000 frozen_time=2000}}. */
	static const uint8_t stats[] = {0x40, 0x59, 0x10, 0x55, 0x06, 0x33, 0x09, 0x57, 8,    0,
					0,    0,    0x0a, 6,	0x08, 0xe8, 0x07, 0x10, 0xd0, 0x0f};
	seed.size = 0;
	add(&seed, stats, sizeof(stats));
	write_seed(corpus, "criu_log", "stats", &seed);
}

static void add_header(struct seed *seed, uint32_t command, uint32_t flags, uint32_t pages,
		       uint64_t address)
{
	struct page_header header = {command, flags, pages, address, (uint64_t)42 << 8 | PAGE_TASK};
	uint8_t bytes[PAGE_HEADER_BYTES];

	page_header_encode(&header, bytes);
	add(seed, bytes, sizeof(bytes));
}

static void pages(const char *corpus)
{
	static const uint8_t page[PAGE_BYTES] = {1, 2, 3};
	struct seed seed = {.size = 0}, first = {.size = 0}, second = {.size = 0},
		    none = {.size = 0};

	add_header(&first, PAGE_OPEN, 0, 0, 0);
	add_header(&first, PAGE_ADD, PAGE_PRESENT, 1, 0x10000);
	add(&first, page, sizeof(page));
	add_header(&first, PAGE_ADD, PAGE_PRESENT | PAGE_ZERO, 3, 0x20000);
	add_header(&first, PAGE_CLOSE, 0, 0, 0);
	add_header(&second, PAGE_OPEN, 0, 0, 0);
	add_header(&second, PAGE_ADD, PAGE_IN_PARENT, 1, 0x10000);
	add_header(&second, PAGE_ADD, PAGE_PRESENT | PAGE_ZERO, 1, 0x20000);
	add_header(&second, PAGE_CLOSE, 0, 0, 0);
	add_piece(&seed, &first, 2);
	for (int i = 0; i < 3; i++)
		add_piece(&seed, &none, 2);
	add_piece(&seed, &second, 2);
	write_seed(corpus, "pages", "two-rounds", &seed);
	write_seed(corpus, "pages", "header", &first);
}

static void late(const char *corpus)
{
	static const uint8_t page[PAGE_BYTES] = {1, 2, 3};
	struct seed seed = {.size = 0}, wrong = {.size = 0};

	add_header(&seed, PAGE_ADD, PAGE_PRESENT, 1, 0x12000);
	add(&seed, page, sizeof(page));
	add_header(&seed, PAGE_ADD, PAGE_PRESENT | PAGE_ZERO, 2, 0x16000);
	write_seed(corpus, "late", "batch", &seed);
	add_header(&wrong, PAGE_ADD, PAGE_PRESENT | PAGE_ZERO, 1, 0x10000);
	write_seed(corpus, "late", "not-late", &wrong);
}

static void images(const char *corpus)
{
	struct seed seed = {.size = 0}, piece = {.size = 0};
	Haul__V1__ImageChunk chunk = HAUL__V1__IMAGE_CHUNK__INIT;

	chunk.name = (char *)"core-1.img";
	chunk.data = (ProtobufCBinaryData){4, (uint8_t *)"core"};
	add_message(&piece, &chunk.base);
	add_piece(&seed, &piece, 2);
	chunk.offset = 4;
	chunk.last = 1;
	chunk.size = 8;
	chunk.digest = XXH3_64bits("corecore", 8);
	piece.size = 0;
	add_message(&piece, &chunk.base);
	add_piece(&seed, &piece, 2);
	write_seed(corpus, "image", "two-chunks", &seed);
}

static void journal(const char *corpus)
{
	static const uint8_t header[16] = {'h', 'a', 'u', 'l', '-', 'j', 'n', 'l', 1};
	struct seed file = {.size = 0}, pieces = {.size = 0};
	Haul__V1__JournalRecord record = HAUL__V1__JOURNAL_RECORD__INIT;

	add(&file, header, sizeof(header));
	record.id = (char *)"abc";
	for (int event = HAUL__V1__JOURNAL_EVENT__J_DEST_PREPARED;
	     event <= HAUL__V1__JOURNAL_EVENT__J_DEST_SETTLED; event++) {
		struct seed piece = {.size = 0};
		record.event = (Haul__V1__JournalEvent)event;
		add_message(&piece, &record.base);
		uint32_t head[2] = {htole32((uint32_t)piece.size),
				    htole32((uint32_t)XXH3_64bits(piece.data, piece.size))};
		add(&file, head, sizeof(head));
		add(&file, piece.data, piece.size);
		add_piece(&pieces, &piece, 1);
	}
	write_seed(corpus, "journal", "file", &file);
	write_seed(corpus, "journal", "pieces", &pieces);
	file.size -= 2;
	write_seed(corpus, "journal", "torn", &file);
}

extern const uint8_t every_descriptor_set[];
extern const size_t every_descriptor_set_size;

static void descriptors(const char *corpus)
{
	/* A Migration, and a message with every kind of field. */
	static const uint8_t migration[] = {0x0a, 1, 'a', 0x10, 1, 0x52, 4, 0x08, 1, 0x10, 2};
	static const uint8_t message[] = {0x18, 1,    0x8a, 1,	 3,    0x0a, 1,	   'a', 0x9a, 3,
					  5,	0x0a, 1,    'k', 0x10, 1,    0xea, 3,	2,    8,
					  5,	0xb2, 1,    2,	 1,    2,    0x7a, 1,	0xff};
	struct seed seed = {.size = 0}, set = {.size = 0};

	add(&set, own_descriptor_set, own_descriptor_set_size);
	add_piece(&seed, &set, 2);
	add(&seed, migration, sizeof(migration));
	write_seed(corpus, "descriptor", "own", &seed);
	set.size = seed.size = 0;
	add(&set, every_descriptor_set, every_descriptor_set_size);
	add_piece(&seed, &set, 2);
	add(&seed, message, sizeof(message));
	write_seed(corpus, "descriptor", "every", &seed);
}

static void json(const char *corpus)
{
	write_text(corpus, "json", "scalars",
		   "{\"aDouble\": -1.5e-3, \"aFloat\": \"NaN\", \"anInt32\": -1, \"anInt64\": "
		   "\"-9223372036854775808\", \"aUint64\": 7, \"aSint64\": \"3\", "
		   "\"a_bool\": true, \"aString\": \"\\u00fc\\n\", \"someBytes\": \"AA==\", "
		   "\"colour\": \"RED\"}");
	write_text(corpus, "json", "messages",
		   "{\"inner\": {\"text\": \"a\", \"deeper\": {}, \"numbers\": [1, -1]}, "
		   "\"int32s\": [1, 2], \"colours\": [2, \"RED\"], \"byNumber\": 1, "
		   "\"byText\": {\"k\": 1}, \"byInt32\": {\"-1\": {}}, \"byBool\": {\"true\": "
		   "\"\"}, \"maybeInt32\": 0, \"inners\": [{}], \"byName\": null}");
	write_text(corpus, "json", "moments",
		   "{\"at\": \"2024-02-29T23:59:59.5+01:00\", \"took\": \"-1.5s\", \"tooks\": "
		   "[\"0s\"], \"@other\": \"\"}");
}

static void lazy(const char *corpus)
{
	struct pagemap_run runs[] = {{0x10000, 2, PAGE_PRESENT | PAGE_LAZY},
				     {0x12000, 5, PAGE_IN_PARENT},
				     {0x20000, 1, PAGE_LAZY}};
	const struct pagemap map = {.pages_id = 1, .runs = runs, .count = 3};
	struct buffer image = {0};
	Haul__Mm__Vma vma = HAUL__MM__VMA__INIT, *vmas[] = {&vma};
	Haul__Mm__Mm mm = HAUL__MM__MM__INIT;
	struct seed pages = {.size = 0}, mappings = {.size = 0}, words = {.size = 0};

	if (pagemap_encode(&map, &image) != NULL)
		abort();
	add(&pages, image.data, image.size);
	buffer_free(&image);
	write_seed(corpus, "lazy", "pagemap", &pages);
	vma.start = 0x10000;
	vma.end = 0x21000;
	vma.flags = 0x22;
	vma.status = 1;
	mm.vmas = vmas;
	mm.n_vmas = 1;
	uint32_t head[] = {htole32(0x54564319), htole32(0x57492820),
			   htole32((uint32_t)haul__mm__mm__get_packed_size(&mm))};
	add(&mappings, head, sizeof(head));
	add_message(&mappings, &mm.base);
	write_seed(corpus, "lazy", "mm", &mappings);
	uint32_t said[] = {htole32((uint32_t)-42), htole32(0x52535446)};
	add(&words, said, sizeof(said));
	write_seed(corpus, "lazy", "words", &words);
}

/* memfd.img, fdinfo-2.img, a pagemap of a few pages, and their content. */
static void shared(const char *corpus)
{
	struct pagemap_run runs[] = {{0x2000, 1, PAGE_PRESENT}, {0x8000, 3, PAGE_IN_PARENT}};
	const struct pagemap map = {.pages_id = 1, .runs = runs, .count = 2};
	Haul__Memfd__Inode inode = HAUL__MEMFD__INODE__INIT;
	Haul__Memfd__Descriptor descriptor = HAUL__MEMFD__DESCRIPTOR__INIT;
	struct buffer image = {0};
	struct seed seed = {.size = 0}, memfd = {.size = 0}, files = {.size = 0};
	struct seed pagemap = {.size = 0}, content = {.size = 4096};

	inode.name = (char *)"/dev/zero";
	inode.size = 256 * 4096;
	inode.shmid = 77;
	inode.seals = 1;
	memfd.size = image_put_header(0x48453499, memfd.data);
	memfd.size += image_put_message(&inode.base, memfd.data + memfd.size);
	descriptor.type = 1;
	files.size = image_put_header(0x56213732, files.data);
	files.size += image_put_message(&descriptor.base, files.data + files.size);
	if (pagemap_encode(&map, &image) != NULL)
		abort();
	add(&pagemap, image.data, image.size);
	buffer_free(&image);
	memset(content.data, 'x', content.size);
	add_piece(&seed, &memfd, 2);
	add_piece(&seed, &files, 2);
	add_piece(&seed, &pagemap, 2);
	add_piece(&seed, &content, 2);
	write_seed(corpus, "shared", "whole", &seed);
}

/* Greetings that nobody sealed, and messages behind their lengths. */
static void pipes(const char *corpus)
{
	static const uint8_t header[] = {0, 'S', 'P', 0, 0, 0x10, 0, 0};
	static const uint8_t hello[] = {0, 0, 0, 0, 0, 0, 0, 17}, ipc = 1;
	static const char sealed[] = "seventeen bytes..";

	for (uint8_t is_ipc = 0; is_ipc < 2; is_ipc++) {
		struct seed seed = {.size = 0};
		uint8_t how = (uint8_t)(5U << 1 | is_ipc);
		add(&seed, &how, 1);
		add(&seed, header, sizeof(header));
		for (int i = 0; i < 3; i++) {
			add(&seed, &ipc, is_ipc);
			add(&seed, hello, sizeof(hello));
			add_text(&seed, sealed);
		}
		write_seed(corpus, "pipe", is_ipc != 0 ? "file" : "tcp", &seed);
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		(void)fprintf(stderr, "usage: fuzz_seeds DIRECTORY\n");
		return 2;
	}
	if (mkdir(argv[1], 0755) != 0 && errno != EEXIST)
		return 1;
	envelope(argv[1]);
	streams(argv[1]);
	pipes(argv[1]);
	criu(argv[1]);
	pages(argv[1]);
	late(argv[1]);
	images(argv[1]);
	lazy(argv[1]);
	shared(argv[1]);
	journal(argv[1]);
	descriptors(argv[1]);
	json(argv[1]);
	write_text(argv[1], "seal", "whole", "aaasealed message");
	write_text(argv[1], "config", "some",
		   "{\"node\": \"a\", \"listen\": \"tcp://0.0.0.0:7799\", \"insecure\": true, "
		   "\"state-dir\": \"/var/lib/haul\", "
		   "\"data-ports\": \"7800-7899\", \"lease\": \"15s\"}");
	write_text(argv[1], "policy", "rules",
		   "{\"rules\": [{\"identities\": [\"a\", \"*.example.org\"], \"methods\": "
		   "[\"/haul.v1.Peer/Commit\"]}], "
		   "\"insecure\": false}");
	write_text(argv[1], "policy", "all",
		   "{\"roles\": {\"r\": [\"/haul.v1.Migrations/Start\"]}, \"rules\": "
		   "[{\"identities\": [\"spiffe://c/node/*\"], \"roles\": [\"r\", "
		   "\"partner\"]}], \"migrate-to\": [\"*\"], \"accept-from\": [], "
		   "\"limits\": [{\"identities\": [\"*\"], \"calls\": 8, \"sessions\": 4, "
		   "\"streams\": 2}]}");
	write_text(argv[1], "endpoint", "tls", "tls+tcp://node-b.example.org:7799");
	write_text(argv[1], "endpoint", "ip6", "tcp://[2001:db8::1]:7799");
	write_text(argv[1], "endpoint", "ipc", "ipc:///run/haul/hauld.sock");
	return 0;
}
