/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/render_json.h"

#include <string.h>

#include "cmd/haulctl/render.h"
#include "proto/envelope.h"
#include "proto/pack.h"
#include "proto/reason.h"

static void add_violations(cJSON *json, const status *st)
{
	cJSON *violations = NULL;

	for (size_t i = 0; i < status_detail_count(st); i++) {
		struct status_detail detail = status_detail_at(st, i);
		if (strncmp(detail.label, VIOLATION_PREFIX, strlen(VIOLATION_PREFIX)) != 0)
			continue;
		if (violations == NULL)
			violations = cJSON_AddArrayToObject(
			    cJSON_AddObjectToObject(json, "preconditionFailure"), "violations");
		cJSON *violation = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(violation, "type",
					      detail.label + strlen(VIOLATION_PREFIX));
		(void)cJSON_AddStringToObject(violation, "description", detail.text);
		(void)cJSON_AddItemToArray(violations, violation);
	}
}

static void add_debug_info(cJSON *json, const char *log)
{
	cJSON *debug = cJSON_AddObjectToObject(json, "debugInfo");
	cJSON *lines = cJSON_AddArrayToObject(debug, "stackEntries");
	scoped(str) char *copy = text_copy(log);
	char *rest = NULL;

	(void)cJSON_AddStringToObject(debug, "detail", "the end of CRIU's log");
	for (char *line = strtok_r(copy, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest))
		(void)cJSON_AddItemToArray(lines, cJSON_CreateString(line));
}

/* gRPC's richer errors: ErrorInfo, PreconditionFailure, RetryInfo, DebugInfo. */
static void add_error_info(cJSON *json, const status *st)
{
	const char *reason = status_reason(st);
	const char *retry_ms = status_detail_find(st, RETRY_LABEL);
	const char *debug = status_detail_find(st, DEBUG_LABEL);
	char delay[RENDER_NUMBER];

	if (reason != NULL) {
		(void)cJSON_AddStringToObject(json, "reason", reason);
		(void)cJSON_AddStringToObject(json, "domain", REASON_DOMAIN);
	}
	add_violations(json, st);
	if (retry_ms != NULL) {
		(void)snprintf(delay, sizeof(delay), "%.3fs", strtod(retry_ms, NULL) / 1000);
		(void)cJSON_AddStringToObject(cJSON_AddObjectToObject(json, "retryInfo"),
					      "retryDelay", delay);
	}
	if (debug != NULL)
		add_debug_info(json, debug);
}

cJSON *json_of_status(const status *st)
{
	if (st == NULL)
		return cJSON_CreateNull();
	cJSON *json = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(json, "code", status_code_name(status_code_of(st)));
	(void)cJSON_AddStringToObject(json, "message", status_message(st));
	add_error_info(json, st);
	cJSON *details = cJSON_AddArrayToObject(json, "details");
	for (size_t i = 0; i < status_detail_count(st); i++) {
		cJSON *detail = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(detail, "label", status_detail_at(st, i).label);
		(void)cJSON_AddStringToObject(detail, "text", status_detail_at(st, i).text);
		(void)cJSON_AddItemToArray(details, detail);
	}
	return json;
}

static cJSON *json_of_rounds(const Haul__V1__Migration *migration)
{
	cJSON *rounds = cJSON_CreateArray();

	for (size_t i = 0; i < migration->n_rounds; i++) {
		const Haul__V1__Round *from = migration->rounds[i];
		cJSON *round = cJSON_CreateObject();
		(void)cJSON_AddNumberToObject(round, "pagesSent", (double)from->pages_sent);
		(void)cJSON_AddNumberToObject(round, "pagesSkipped", (double)from->pages_skipped);
		(void)cJSON_AddNumberToObject(round, "pagesSame", (double)from->pages_same);
		(void)cJSON_AddNumberToObject(round, "pagesZero", (double)from->pages_zero);
		(void)cJSON_AddNumberToObject(round, "bytes", (double)from->bytes);
		(void)cJSON_AddNumberToObject(round, "durationMs", from->duration_ms);
		(void)cJSON_AddNumberToObject(round, "frozenMs", from->frozen_ms);
		(void)cJSON_AddItemToArray(rounds, round);
	}
	return rounds;
}

static void add_full(cJSON *json, const Haul__V1__Migration *from)
{
	(void)cJSON_AddStringToObject(json, "role", from->role);
	(void)cJSON_AddStringToObject(json, "workload", from->workload);
	(void)cJSON_AddStringToObject(json, "peer", from->peer);
	(void)cJSON_AddNumberToObject(json, "pid", from->pid);
	(void)cJSON_AddNumberToObject(json, "startedUnixMs", (double)from->started_unix_ms);
	(void)cJSON_AddNumberToObject(json, "endedUnixMs", (double)from->ended_unix_ms);
	(void)cJSON_AddNumberToObject(json, "predictedDumpMs", from->predicted_dump_ms);
	(void)cJSON_AddNumberToObject(json, "predictedRestoreMs", from->predicted_restore_ms);
	(void)cJSON_AddNumberToObject(json, "cpuSharePercent", from->cpu_share_percent);
	(void)cJSON_AddNumberToObject(json, "rateBytesPerS", (double)from->rate_bytes_per_s);
	(void)cJSON_AddNumberToObject(json, "inDoubtSinceUnixMs",
				      (double)from->in_doubt_since_unix_ms);
	(void)cJSON_AddStringToObject(json, "doubt", from->doubt);
}

cJSON *json_of_migration(const Haul__V1__Migration *migration, bool is_full)
{
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(json, "id", migration->id);
	(void)cJSON_AddStringToObject(json, "state", state_name(migration->state));
	(void)cJSON_AddStringToObject(json, "stage", migration->stage);
	(void)cJSON_AddNumberToObject(json, "downtimeMs", migration->downtime_ms);
	(void)cJSON_AddNumberToObject(json, "predictedDowntimeMs",
				      migration->predicted_downtime_ms);
	(void)cJSON_AddNumberToObject(json, "predictionErrorMs", migration->prediction_error_ms);
	(void)cJSON_AddNumberToObject(json, "totalMs", migration->total_ms);
	(void)cJSON_AddItemToObject(json, "rounds", json_of_rounds(migration));
	(void)cJSON_AddNumberToObject(json, "bytesOnWire", (double)migration->bytes_on_wire);
	cJSON *criu = cJSON_AddObjectToObject(json, "criu");
	(void)cJSON_AddNumberToObject(criu, "freezeMs", migration->criu_freeze_ms);
	(void)cJSON_AddNumberToObject(criu, "restoreMs", migration->criu_restore_ms);
	(void)cJSON_AddNumberToObject(json, "restoredPid", migration->restored_pid);
	(void)cJSON_AddStringToObject(json, "tracking", migration->tracking);
	(void)cJSON_AddStringToObject(json, "mode", migration->mode);
	(void)cJSON_AddNumberToObject(json, "streams", migration->streams);
	cJSON *restore = cJSON_AddObjectToObject(json, "restore");
	(void)cJSON_AddStringToObject(restore, "mode", migration->restore);
	(void)cJSON_AddNumberToObject(restore, "lazyPages", (double)migration->lazy_pages);
	(void)cJSON_AddNumberToObject(restore, "lazyFaults", (double)migration->lazy_faults);
	(void)cJSON_AddNumberToObject(restore, "fillMs", migration->fill_ms);
	(void)cJSON_AddNumberToObject(restore, "latePages", (double)migration->late_pages);
	(void)cJSON_AddNumberToObject(restore, "lateFaults", (double)migration->late_faults);
	(void)cJSON_AddNumberToObject(restore, "lateMissing", (double)migration->late_missing);
	cJSON *notes = cJSON_AddArrayToObject(json, "notes");
	for (size_t i = 0; i < migration->n_notes; i++)
		(void)cJSON_AddItemToArray(notes, cJSON_CreateString(migration->notes[i]));
	scoped(status) status *error = status_from_wire(migration->error);
	(void)cJSON_AddItemToObject(json, "error", json_of_status(error));
	if (is_full)
		add_full(json, migration);
	return json;
}

cJSON *json_of_list(const Haul__V1__ListResponse *list)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *migrations = cJSON_AddArrayToObject(json, "migrations");

	for (size_t i = 0; i < list->n_migrations; i++)
		(void)cJSON_AddItemToArray(migrations,
					   json_of_migration(list->migrations[i], true));
	return json;
}

cJSON *json_of_check(const Haul__V1__CheckResponse *check)
{
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddBoolToObject(json, "migratable", check->migratable);
	cJSON *findings = cJSON_AddArrayToObject(json, "findings");
	for (size_t i = 0; i < check->n_findings; i++) {
		cJSON *finding = cJSON_CreateObject();
		(void)cJSON_AddBoolToObject(finding, "ok", check->findings[i]->ok);
		(void)cJSON_AddStringToObject(finding, "check", check->findings[i]->check);
		(void)cJSON_AddStringToObject(finding, "text", check->findings[i]->text);
		(void)cJSON_AddItemToArray(findings, finding);
	}
	return json;
}

cJSON *json_of_node(const Haul__V1__NodeInfo *node)
{
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(json, "node", node->node);
	(void)cJSON_AddStringToObject(json, "version", node->version);
	(void)cJSON_AddNumberToObject(json, "protocol", node->protocol);
	(void)cJSON_AddStringToObject(json, "criu", node->criu);
	(void)cJSON_AddStringToObject(json, "criuTrouble", node->criu_trouble);
	(void)cJSON_AddStringToObject(json, "kernel", node->kernel);
	(void)cJSON_AddStringToObject(json, "machine", node->machine);
	(void)cJSON_AddBoolToObject(json, "dirtyTracking", node->dirty_tracking);
	(void)cJSON_AddBoolToObject(json, "lazyRestore", node->lazy_restore);
	(void)cJSON_AddStringToObject(json, "lazyTrouble", node->lazy_trouble);
	(void)cJSON_AddStringToObject(json, "nng", node->nng);
	(void)cJSON_AddStringToObject(json, "openssl", node->openssl);
	(void)cJSON_AddNumberToObject(json, "migrationsActive", node->migrations_active);
	(void)cJSON_AddNumberToObject(json, "migrationsInDoubt", node->migrations_in_doubt);
	(void)cJSON_AddNumberToObject(json, "startedUnixMs", (double)node->started_unix_ms);
	(void)cJSON_AddStringToObject(json, "identity", node->identity);
	(void)cJSON_AddNumberToObject(json, "certificateExpiresUnixMs",
				      (double)node->certificate_expires_unix_ms);
	(void)cJSON_AddNumberToObject(json, "crlExpiresUnixMs", (double)node->crl_expires_unix_ms);
	(void)cJSON_AddBoolToObject(json, "draining", node->draining);
	return json;
}

void json_print(FILE *out, cJSON *json, bool is_one_line)
{
	char *text = is_one_line ? cJSON_PrintUnformatted(json) : cJSON_Print(json);

	if (text == NULL)
		abort(); /* no memory: half an answer would be worse */
	(void)fprintf(out, "%s\n", text);
	(void)fflush(out);
	cJSON_free(text);
	cJSON_Delete(json);
}
