/* SPDX-License-Identifier: Apache-2.0 */
/* A plain array: with 1024 entries a scan costs less than the TLS record that brought the request.
 * When it is full the oldest answer goes, of the same caller if that one holds more than its share:
 * a busy peer cannot make us forget another's answers. */
#include "rpc/dedupe.h"

#include <openssl/sha.h>
#include <pthread.h>
#include <string.h>

#include "rpc/nng_error.h"

enum {
	DEDUPE_ENTRIES = 1024,
	DEDUPE_SHARE = DEDUPE_ENTRIES / 4,
	DEDUPE_AGE_MS = 10 * 60 * 1000,
	DEDUPE_BYTES = 32 * 1024 * 1024,
	DEDUPE_WAIT_MS = 60 * 1000,
};

enum entry_state { ENTRY_FREE, ENTRY_RUNNING, ENTRY_DONE };

struct entry {
	enum entry_state state;
	uint64_t ticket;
	int64_t since_ms;
	char caller[LIMIT_NAME + 1];
	bool is_local;
	uint8_t id[REQUEST_ID_BYTES];
	uint8_t digest[SHA256_DIGEST_LENGTH];
	struct buffer answer;
};

struct dedupe {
	pthread_mutex_t lock;
	pthread_cond_t done;
	bool is_stopped;
	uint64_t tickets;
	size_t bytes;
	struct entry entries[DEDUPE_ENTRIES];
};

status *dedupe_new(struct dedupe **ret_dedupe)
{
	struct dedupe *dedupe = calloc(1, sizeof(*dedupe));
	if (dedupe == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for the answers' table");
	pthread_condattr_t attr;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&dedupe->done, &attr);
	(void)pthread_condattr_destroy(&attr);
	(void)pthread_mutex_init(&dedupe->lock, NULL);
	*ret_dedupe = dedupe;
	return NULL;
}

static void drop_entry(struct dedupe *dedupe, struct entry *entry)
{
	dedupe->bytes -= entry->answer.size;
	buffer_free(&entry->answer);
	*entry = (struct entry){0};
}

static bool is_of(const struct entry *entry, const struct identity *caller)
{
	return entry->state != ENTRY_FREE && entry->is_local == caller->is_local &&
	       strcmp(entry->caller, caller->name) == 0;
}

static struct entry *find_entry(struct dedupe *dedupe, const struct identity *caller,
				const uint8_t *id)
{
	for (size_t i = 0; i < DEDUPE_ENTRIES; i++) {
		struct entry *entry = &dedupe->entries[i];
		if (is_of(entry, caller) && memcmp(entry->id, id, REQUEST_ID_BYTES) == 0)
			return entry;
	}
	return NULL;
}

static void drop_old(struct dedupe *dedupe)
{
	int64_t limit = monotonic_ms() - DEDUPE_AGE_MS;
	for (size_t i = 0; i < DEDUPE_ENTRIES; i++) {
		struct entry *entry = &dedupe->entries[i];
		if (entry->state == ENTRY_DONE && entry->since_ms < limit)
			drop_entry(dedupe, entry);
	}
}

/* The oldest answer, of `caller` only unless that is NULL. */
static struct entry *oldest_answer(struct dedupe *dedupe, const struct identity *caller)
{
	struct entry *oldest = NULL;
	for (size_t i = 0; i < DEDUPE_ENTRIES; i++) {
		struct entry *entry = &dedupe->entries[i];
		if (entry->state != ENTRY_DONE || (caller != NULL && !is_of(entry, caller)))
			continue;
		if (oldest == NULL || entry->ticket < oldest->ticket)
			oldest = entry;
	}
	return oldest;
}

static struct entry *free_entry(struct dedupe *dedupe, const struct identity *caller)
{
	struct entry *vacant = NULL;
	unsigned held = 0;
	drop_old(dedupe);
	for (size_t i = 0; i < DEDUPE_ENTRIES; i++) {
		held += is_of(&dedupe->entries[i], caller) ? 1 : 0;
		if (dedupe->entries[i].state == ENTRY_FREE && vacant == NULL)
			vacant = &dedupe->entries[i];
	}
	if (vacant != NULL)
		return vacant;
	struct entry *victim = held > DEDUPE_SHARE ? oldest_answer(dedupe, caller) : NULL;
	if (victim == NULL)
		victim = oldest_answer(dedupe, NULL);
	if (victim != NULL)
		drop_entry(dedupe, victim);
	return victim;
}

static void digest_request(const Haul__V1__Request *request, uint8_t *ret_digest)
{
	uint8_t parts[2 * SHA256_DIGEST_LENGTH];
	(void)SHA256((const uint8_t *)request->method, strlen(request->method), parts);
	(void)SHA256(request->payload.data, request->payload.len, parts + SHA256_DIGEST_LENGTH);
	(void)SHA256(parts, sizeof(parts), ret_digest);
}

static void copy_answer(const struct entry *entry, struct buffer *ret_answer)
{
	struct buffer copy = {.data = malloc(entry->answer.size + 1), .size = entry->answer.size};
	if (copy.data == NULL)
		copy.size = 0;
	else if (copy.size > 0)
		memcpy(copy.data, entry->answer.data, copy.size);
	*ret_answer = copy;
}

/* Waits while `entry` runs for this id; caller holds the lock. The entry may be another's after. */
static struct entry *wait_for(struct dedupe *dedupe, const struct identity *caller,
			      const uint8_t *id, int64_t deadline_ms)
{
	struct timespec until = {.tv_sec = deadline_ms / 1000,
				 .tv_nsec = (deadline_ms % 1000) * 1000000};
	struct entry *entry = find_entry(dedupe, caller, id);
	while (entry != NULL && entry->state == ENTRY_RUNNING && !dedupe->is_stopped) {
		if (pthread_cond_timedwait(&dedupe->done, &dedupe->lock, &until) != 0)
			break;
		entry = find_entry(dedupe, caller, id);
	}
	return entry;
}

static enum dedupe_verdict begin_new(struct dedupe *dedupe, const struct identity *caller,
				     const uint8_t *id, const uint8_t *digest, uint64_t *ret_ticket)
{
	struct entry *entry = free_entry(dedupe, caller);
	*ret_ticket = 0;
	if (entry == NULL) /* every entry runs: cannot be, there are fewer threads */
		return DEDUPE_RUN;
	entry->state = ENTRY_RUNNING;
	entry->ticket = ++dedupe->tickets;
	entry->since_ms = monotonic_ms();
	entry->is_local = caller->is_local;
	memcpy(entry->caller, caller->name, sizeof(entry->caller));
	memcpy(entry->id, id, REQUEST_ID_BYTES);
	memcpy(entry->digest, digest, sizeof(entry->digest));
	*ret_ticket = entry->ticket;
	return DEDUPE_RUN;
}

enum dedupe_verdict dedupe_begin(struct dedupe *dedupe, const struct identity *caller,
				 const Haul__V1__Request *request, int64_t deadline_ms,
				 uint64_t *ret_ticket, struct buffer *ret_answer)
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	const uint8_t *id = request->request_id.data;
	int64_t latest = monotonic_ms() + DEDUPE_WAIT_MS;
	enum dedupe_verdict verdict = DEDUPE_ANSWERED;
	digest_request(request, digest);
	(void)pthread_mutex_lock(&dedupe->lock);
	struct entry *entry = find_entry(dedupe, caller, id);
	if (entry != NULL && memcmp(entry->digest, digest, sizeof(digest)) == 0)
		entry = wait_for(dedupe, caller, id,
				 deadline_ms > 0 && deadline_ms < latest ? deadline_ms : latest);
	if (entry == NULL)
		verdict = begin_new(dedupe, caller, id, digest, ret_ticket);
	else if (memcmp(entry->digest, digest, sizeof(digest)) != 0)
		verdict = DEDUPE_DIFFERENT;
	else if (entry->state == ENTRY_RUNNING)
		verdict = DEDUPE_TIMEOUT;
	else
		copy_answer(entry, ret_answer);
	(void)pthread_mutex_unlock(&dedupe->lock);
	return verdict;
}

void dedupe_finish(struct dedupe *dedupe, uint64_t ticket, const struct buffer *answer)
{
	(void)pthread_mutex_lock(&dedupe->lock);
	for (size_t i = 0; i < DEDUPE_ENTRIES && ticket != 0; i++) {
		struct entry *entry = &dedupe->entries[i];
		if (entry->state != ENTRY_RUNNING || entry->ticket != ticket)
			continue;
		struct entry given = {.answer = *answer};
		copy_answer(&given, &entry->answer);
		entry->state = ENTRY_DONE;
		entry->since_ms = monotonic_ms();
		dedupe->bytes += entry->answer.size;
		break;
	}
	for (struct entry *oldest = NULL; dedupe->bytes > DEDUPE_BYTES;) {
		oldest = oldest_answer(dedupe, NULL);
		if (oldest == NULL)
			break;
		drop_entry(dedupe, oldest);
	}
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
	for (size_t i = 0; i < DEDUPE_ENTRIES; i++)
		buffer_free(&dedupe->entries[i].answer);
	(void)pthread_cond_destroy(&dedupe->done);
	(void)pthread_mutex_destroy(&dedupe->lock);
	free(dedupe);
}
