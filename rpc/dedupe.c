/* SPDX-License-Identifier: Apache-2.0 */
/* A table of requests with hash chains, and the finished ones in a list, oldest first. Places are
 * named by index + 1; 0 is none. */
#include "rpc/dedupe.h"
#include "proto/clock.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <string.h>

#include "rpc/nng_error.h"

enum {
	DEDUPE_BYTES = 32 * 1024 * 1024,
	DEDUPE_MARGIN_MS = 30 * 1000,
	DEDUPE_WAIT_MS = 60 * 1000,
	CALLERS = 1024, /* counters; callers that share one share their part, too */
	KEY_BYTES = 16,
};

static_assert((int)LIMIT_ANSWER_MS > (int)LIMIT_RETRY_MS + (int)DEDUPE_MARGIN_MS,
	      "an answer is remembered for longer than anybody asks again");

enum entry_state { ENTRY_FREE, ENTRY_RUNNING, ENTRY_DONE };

struct entry {
	enum entry_state state;
	bool has_answer;
	uint16_t caller;
	uint32_t chain; /* next of the bucket, or of the free ones */
	uint32_t older, younger;
	uint64_t ticket;
	int64_t done_ms;
	int64_t needed_ms; /* until then the caller may ask again */
	uint8_t key[KEY_BYTES];
	uint8_t digest[SHA256_DIGEST_LENGTH];
	struct buffer answer;
};

struct dedupe {
	struct dedupe_limits limits;
	EVP_MD *sha256; /* fetched once: that takes longer than a short digest */
	pthread_mutex_t lock;
	pthread_cond_t done;
	bool is_stopped;
	uint64_t tickets;
	size_t bytes;
	uint32_t oldest, youngest; /* of the finished */
	uint32_t vacant;	   /* the free ones */
	uint32_t held[CALLERS];
	uint32_t *buckets;
	struct entry *entries;
};

/* What identifies a request. */
struct wanted {
	uint16_t caller;
	uint8_t key[KEY_BYTES];
	uint8_t digest[SHA256_DIGEST_LENGTH];
};

static status *make_tables(struct dedupe *dedupe)
{
	uint32_t count = dedupe->limits.requests;
	dedupe->buckets = calloc(count, sizeof(*dedupe->buckets));
	dedupe->entries = calloc(count, sizeof(*dedupe->entries));
	dedupe->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (dedupe->buckets == NULL || dedupe->entries == NULL || dedupe->sha256 == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for the answers' table");
	for (uint32_t i = 0; i < count; i++)
		dedupe->entries[i].chain = i + 2 <= count ? i + 2 : 0;
	dedupe->vacant = 1;
	return NULL;
}

status *dedupe_new(const struct dedupe_limits *limits, struct dedupe **ret_dedupe)
{
	static const struct dedupe_limits usual = {.requests = LIMIT_REQUESTS_KEPT,
						   .bytes = DEDUPE_BYTES,
						   .age_ms = LIMIT_ANSWER_MS,
						   .margin_ms = DEDUPE_MARGIN_MS,
						   .now_ms = clock_monotonic_ms};
	struct dedupe *dedupe = calloc(1, sizeof(*dedupe));
	if (dedupe == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for the answers' table");
	dedupe->limits = limits != NULL ? *limits : usual;
	clock_cond_init(&dedupe->done);
	(void)pthread_mutex_init(&dedupe->lock, NULL);
	status *st = make_tables(dedupe);
	if (st != NULL) {
		dedupe_free(dedupe);
		return st;
	}
	*ret_dedupe = dedupe;
	return NULL;
}

static struct entry *at(struct dedupe *dedupe, uint32_t place)
{
	return place != 0 ? &dedupe->entries[place - 1] : NULL;
}

static uint32_t place_of(const struct dedupe *dedupe, const struct entry *entry)
{
	return (uint32_t)(entry - dedupe->entries) + 1;
}

static uint32_t *bucket_of(struct dedupe *dedupe, const uint8_t key[KEY_BYTES])
{
	uint32_t hash;
	memcpy(&hash, key, sizeof(hash));
	return &dedupe->buckets[hash % dedupe->limits.requests];
}

static struct entry *find_entry(struct dedupe *dedupe, const struct wanted *wanted)
{
	struct entry *entry = at(dedupe, *bucket_of(dedupe, wanted->key));
	while (entry != NULL && memcmp(entry->key, wanted->key, KEY_BYTES) != 0)
		entry = at(dedupe, entry->chain);
	return entry;
}

static void list_append(struct dedupe *dedupe, struct entry *entry)
{
	entry->older = dedupe->youngest;
	entry->younger = 0;
	if (dedupe->youngest != 0)
		at(dedupe, dedupe->youngest)->younger = place_of(dedupe, entry);
	else
		dedupe->oldest = place_of(dedupe, entry);
	dedupe->youngest = place_of(dedupe, entry);
}

static void list_remove(struct dedupe *dedupe, const struct entry *entry)
{
	uint32_t *from_older =
	    entry->older != 0 ? &at(dedupe, entry->older)->younger : &dedupe->oldest;
	uint32_t *from_younger =
	    entry->younger != 0 ? &at(dedupe, entry->younger)->older : &dedupe->youngest;
	*from_older = entry->younger;
	*from_younger = entry->older;
}

static void drop_answer(struct dedupe *dedupe, struct entry *entry)
{
	dedupe->bytes -= entry->answer.size;
	buffer_free(&entry->answer);
	entry->answer = (struct buffer){0};
	entry->has_answer = false;
}

/* Forgets a finished one. */
static void drop_entry(struct dedupe *dedupe, struct entry *entry)
{
	uint32_t place = place_of(dedupe, entry);
	uint32_t *link = bucket_of(dedupe, entry->key);
	while (*link != place)
		link = &at(dedupe, *link)->chain;
	*link = entry->chain;
	list_remove(dedupe, entry);
	drop_answer(dedupe, entry);
	dedupe->held[entry->caller]--;
	*entry = (struct entry){.chain = dedupe->vacant};
	dedupe->vacant = place;
}

static void drop_old(struct dedupe *dedupe, int64_t now)
{
	for (struct entry *entry = at(dedupe, dedupe->oldest);
	     entry != NULL && entry->done_ms + dedupe->limits.age_ms <= now;
	     entry = at(dedupe, dedupe->oldest))
		drop_entry(dedupe, entry);
}

/* Forgets the oldest that nobody will ask for again, of this caller only unless that is -1. */
static bool drop_one(struct dedupe *dedupe, int64_t now, int caller)
{
	struct entry *entry = at(dedupe, dedupe->oldest);
	while (entry != NULL &&
	       (entry->needed_ms > now || (caller >= 0 && entry->caller != caller)))
		entry = at(dedupe, entry->younger);
	if (entry != NULL)
		drop_entry(dedupe, entry);
	return entry != NULL;
}

static bool has_room(struct dedupe *dedupe, int64_t now, uint16_t caller)
{
	drop_old(dedupe, now);
	if (dedupe->held[caller] >= dedupe->limits.requests / 4 && !drop_one(dedupe, now, caller))
		return false;
	return dedupe->vacant != 0 || drop_one(dedupe, now, -1);
}

/* Each part with its length before it, so that no two requests look the same. */
static bool digest_part(EVP_MD_CTX *context, const void *data, size_t size)
{
	uint64_t length = size;
	return EVP_DigestUpdate(context, &length, sizeof(length)) == 1 &&
	       EVP_DigestUpdate(context, data, size) == 1;
}

static bool digest_metadata(EVP_MD_CTX *context, const Haul__V1__Metadata *metadata)
{
	bool is_good = true;
	for (size_t i = 0; metadata != NULL && i < metadata->n_entries; i++) {
		const char *key = metadata->entries[i]->key;
		const char *value = metadata->entries[i]->value;
		is_good = is_good && digest_part(context, key, strlen(key)) &&
			  digest_part(context, value, strlen(value));
	}
	return is_good;
}

/* Whose share it counts to. */
static uint16_t share_of(const struct identity *caller)
{
	uint32_t hash = 2166136261U + (caller->is_local ? 1 : 0); /* FNV-1a */
	for (const char *at = caller->name; *at != '\0'; at++)
		hash = (hash ^ (uint8_t)*at) * 16777619U;
	return (uint16_t)(hash % CALLERS);
}

/* False when there is no memory for it. */
static bool identify(const struct dedupe *dedupe, const struct identity *caller,
		     const Haul__V1__Request *request, struct wanted *ret_wanted)
{
	uint8_t hash[SHA256_DIGEST_LENGTH];
	uint8_t is_local = caller->is_local ? 1 : 0;
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool is_good = context != NULL && EVP_DigestInit_ex(context, dedupe->sha256, NULL) == 1 &&
		       digest_part(context, &is_local, sizeof(is_local)) &&
		       digest_part(context, caller->name, strlen(caller->name)) &&
		       digest_part(context, request->request_id.data, REQUEST_ID_BYTES) &&
		       EVP_DigestFinal_ex(context, hash, NULL) == 1;
	is_good = is_good && EVP_DigestInit_ex(context, NULL, NULL) == 1 &&
		  digest_part(context, request->method, strlen(request->method)) &&
		  digest_part(context, request->payload.data, request->payload.len) &&
		  digest_metadata(context, request->metadata) &&
		  EVP_DigestFinal_ex(context, ret_wanted->digest, NULL) == 1;
	EVP_MD_CTX_free(context);
	if (!is_good)
		return false;
	memcpy(ret_wanted->key, hash, KEY_BYTES);
	ret_wanted->caller = share_of(caller);
	return true;
}

static bool copy_answer(const struct buffer *answer, struct buffer *ret_answer)
{
	struct buffer copy = {.data = malloc(answer->size + 1), .size = answer->size};
	if (copy.data == NULL)
		return false;
	if (copy.size > 0)
		memcpy(copy.data, answer->data, copy.size);
	*ret_answer = copy;
	return true;
}

/* Waits while this request runs; caller holds the lock. The entry may be another's after. */
static struct entry *wait_for(struct dedupe *dedupe, const struct wanted *wanted,
			      int64_t deadline_ms)
{
	int64_t latest = clock_monotonic_ms() + DEDUPE_WAIT_MS;
	int64_t until_ms = deadline_ms > 0 && deadline_ms < latest ? deadline_ms : latest;
	struct timespec until = clock_at(until_ms);
	struct entry *entry = find_entry(dedupe, wanted);
	while (entry != NULL && entry->state == ENTRY_RUNNING && !dedupe->is_stopped) {
		if (pthread_cond_timedwait(&dedupe->done, &dedupe->lock, &until) != 0)
			break;
		entry = find_entry(dedupe, wanted);
	}
	return entry;
}

static int64_t needed_until(const struct dedupe *dedupe, int64_t now, int64_t deadline_ms)
{
	int64_t left_ms =
	    deadline_ms > 0 ? deadline_ms - clock_monotonic_ms() : dedupe->limits.age_ms;
	int64_t needed_ms = left_ms + dedupe->limits.margin_ms;
	return now + (needed_ms < dedupe->limits.age_ms ? needed_ms : dedupe->limits.age_ms);
}

static enum dedupe_verdict begin_new(struct dedupe *dedupe, const struct wanted *wanted,
				     int64_t deadline_ms, uint64_t *ret_ticket)
{
	int64_t now = dedupe->limits.now_ms();
	if (!has_room(dedupe, now, wanted->caller))
		return DEDUPE_FULL;
	struct entry *entry = at(dedupe, dedupe->vacant);
	uint32_t *bucket = bucket_of(dedupe, wanted->key);
	dedupe->vacant = entry->chain;
	*entry = (struct entry){.state = ENTRY_RUNNING,
				.caller = wanted->caller,
				.chain = *bucket,
				.ticket = ++dedupe->tickets,
				.needed_ms = needed_until(dedupe, now, deadline_ms)};
	memcpy(entry->key, wanted->key, sizeof(entry->key));
	memcpy(entry->digest, wanted->digest, sizeof(entry->digest));
	*bucket = place_of(dedupe, entry);
	dedupe->held[wanted->caller]++;
	/* The ticket names the place, so that finishing needs no search. */
	*ret_ticket = entry->ticket * dedupe->limits.requests + (place_of(dedupe, entry) - 1);
	return DEDUPE_RUN;
}

enum dedupe_verdict dedupe_begin(struct dedupe *dedupe, const struct identity *caller,
				 const Haul__V1__Request *request, int64_t deadline_ms,
				 uint64_t *ret_ticket, struct buffer *ret_answer)
{
	struct wanted wanted;
	enum dedupe_verdict verdict = DEDUPE_ANSWERED;
	if (!identify(dedupe, caller, request, &wanted))
		return DEDUPE_FULL;
	(void)pthread_mutex_lock(&dedupe->lock);
	drop_old(dedupe, dedupe->limits.now_ms());
	struct entry *entry = find_entry(dedupe, &wanted);
	if (entry != NULL && memcmp(entry->digest, wanted.digest, sizeof(wanted.digest)) == 0)
		entry = wait_for(dedupe, &wanted, deadline_ms);
	if (entry == NULL)
		verdict = begin_new(dedupe, &wanted, deadline_ms, ret_ticket);
	else if (memcmp(entry->digest, wanted.digest, sizeof(wanted.digest)) != 0)
		verdict = DEDUPE_DIFFERENT;
	else if (entry->state == ENTRY_RUNNING)
		verdict = DEDUPE_TIMEOUT;
	else if (!entry->has_answer || !copy_answer(&entry->answer, ret_answer))
		verdict = DEDUPE_FORGOTTEN;
	(void)pthread_mutex_unlock(&dedupe->lock);
	return verdict;
}

/* Answers go by age, those that may still be asked for last. */
static void shrink(struct dedupe *dedupe, int64_t now)
{
	for (int pass = 0; pass < 2 && dedupe->bytes > dedupe->limits.bytes; pass++) {
		struct entry *entry = at(dedupe, dedupe->oldest);
		while (entry != NULL && dedupe->bytes > dedupe->limits.bytes) {
			if (pass == 1 || entry->needed_ms <= now)
				drop_answer(dedupe, entry);
			entry = at(dedupe, entry->younger);
		}
	}
}

void dedupe_finish(struct dedupe *dedupe, uint64_t ticket, const struct buffer *answer)
{
	struct entry *entry = &dedupe->entries[ticket % dedupe->limits.requests];
	(void)pthread_mutex_lock(&dedupe->lock);
	assert(entry->state == ENTRY_RUNNING && entry->ticket == ticket / dedupe->limits.requests);
	entry->has_answer = copy_answer(answer, &entry->answer);
	entry->state = ENTRY_DONE;
	entry->done_ms = dedupe->limits.now_ms();
	dedupe->bytes += entry->answer.size;
	list_append(dedupe, entry);
	shrink(dedupe, entry->done_ms);
	(void)pthread_cond_broadcast(&dedupe->done);
	(void)pthread_mutex_unlock(&dedupe->lock);
}

void dedupe_stop(struct dedupe *dedupe)
{
	(void)pthread_mutex_lock(&dedupe->lock);
	dedupe->is_stopped = true;
	(void)pthread_cond_broadcast(&dedupe->done);
	(void)pthread_mutex_unlock(&dedupe->lock);
}

void dedupe_free(struct dedupe *dedupe)
{
	if (dedupe == NULL)
		return;
	for (uint32_t i = 0; dedupe->entries != NULL && i < dedupe->limits.requests; i++)
		buffer_free(&dedupe->entries[i].answer);
	free(dedupe->entries);
	free(dedupe->buckets);
	EVP_MD_free(dedupe->sha256);
	(void)pthread_cond_destroy(&dedupe->done);
	(void)pthread_mutex_destroy(&dedupe->lock);
	free(dedupe);
}
