/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/render.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render_json.h"
#include "proto/envelope.h"
#include "proto/reason.h"

enum { LIST_COLUMNS = 8, FIELD_WIDTH = 12, PAGE_SIZE_SHOWN = 4096 };

const char *state_name(Haul__V1__MigrationState state)
{
	static _Thread_local char unknown[RENDER_NUMBER];
	const ProtobufCEnumValue *value =
	    protobuf_c_enum_descriptor_get_value(&haul__v1__migration_state__descriptor,
						 (int)state);

	if (value != NULL)
		return value->name;
	(void)snprintf(unknown, sizeof(unknown), "STATE_%d", (int)state);
	return unknown;
}

bool state_is_over(Haul__V1__MigrationState state)
{
	return state == HAUL__V1__MIGRATION_STATE__COMPLETED ||
	       state == HAUL__V1__MIGRATION_STATE__ABORTED ||
	       state == HAUL__V1__MIGRATION_STATE__CANCELLED ||
	       state == HAUL__V1__MIGRATION_STATE__LOST;
}

int migration_exit(const Haul__V1__Migration *migration)
{
	if (migration->state == HAUL__V1__MIGRATION_STATE__COMPLETED ||
	    migration->state == HAUL__V1__MIGRATION_STATE__RUNNING)
		return 0;
	if (migration->state == HAUL__V1__MIGRATION_STATE__CANCELLED)
		return EXIT_BASE + STATUS_CANCELLED;
	if (migration->error != NULL && migration->error->code != 0)
		return EXIT_BASE + (int)status_code_from_wire(migration->error->code);
	if (migration->state == HAUL__V1__MIGRATION_STATE__IN_DOUBT)
		return EXIT_BASE + STATUS_UNAVAILABLE;
	if (migration->state == HAUL__V1__MIGRATION_STATE__LOST)
		return EXIT_BASE + STATUS_DATA_LOSS;
	return EXIT_BASE + STATUS_ABORTED;
}

void format_bytes(char text[RENDER_NUMBER], double bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t unit = 0;

	for (; bytes >= 1024 && unit + 1 < array_len(units); unit++)
		bytes /= 1024;
	(void)snprintf(text, RENDER_NUMBER, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

void format_duration(char text[RENDER_NUMBER], double ms)
{
	if (ms < 1000)
		(void)snprintf(text, RENDER_NUMBER, "%.1f ms", ms);
	else
		(void)snprintf(text, RENDER_NUMBER, "%.2f s", ms / 1000);
}

void format_moment(char text[RENDER_NUMBER], int64_t unix_ms)
{
	time_t seconds = (time_t)(unix_ms / 1000);
	struct tm local;

	if (unix_ms == 0 || localtime_r(&seconds, &local) == NULL ||
	    strftime(text, RENDER_NUMBER, "%Y-%m-%d %H:%M:%S", &local) == 0)
		(void)snprintf(text, RENDER_NUMBER, "-");
}

void print_clean(FILE *out, const char *text)
{
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;
		(void)fputc(byte < ' ' || byte == 0x7f ? '?' : byte, out);
	}
}

static void print_detail(FILE *out, const char *label, const char *text)
{
	(void)fprintf(out, "  ");
	print_clean(out, label);
	(void)fprintf(out, ": ");
	for (; *text != '\0'; text++) {
		/* Several lines (of CRIU's log) stay several, indented. */
		unsigned char byte = (unsigned char)*text;
		if (byte == '\n' && text[1] != '\0')
			(void)fprintf(out, "\n    ");
		else if (byte != '\n')
			(void)fputc((byte < ' ' && byte != '\t') || byte == 0x7f ? '?' : byte, out);
	}
	(void)fputc('\n', out);
}

void print_status(const status *st, bool is_json)
{
	if (is_json) {
		cJSON *json = cJSON_CreateObject();
		(void)cJSON_AddItemToObject(json, "error", json_of_status(st));
		json_print(stdout, json, false);
	}
	(void)fprintf(stderr, "haulctl: %s: ", status_code_name(status_code_of(st)));
	print_clean(stderr, status_message(st));
	(void)fputc('\n', stderr);
	for (size_t i = 0; i < status_detail_count(st); i++) {
		struct status_detail detail = status_detail_at(st, i);
		size_t prefix = strlen(VIOLATION_PREFIX);
		bool is_violation = strncmp(detail.label, VIOLATION_PREFIX, prefix) == 0;
		/* The first one is the sentence already. */
		if (!is_violation || strstr(status_message(st), detail.text) == NULL)
			print_detail(stderr, detail.label + (is_violation ? prefix : 0),
				     detail.text);
	}
}

static void field(FILE *out, const char *name, const char *value)
{
	(void)fprintf(out, "  %-*s", FIELD_WIDTH, name);
	print_clean(out, value);
	(void)fputc('\n', out);
}

/* One sentence on where the workload is now: the engine's own, where it says one. */
static const char *whereabouts(const Haul__V1__Migration *migration)
{
	for (size_t i = 0; migration->error != NULL && i < migration->error->n_details; i++)
		if (strcmp(migration->error->details[i]->label, "state") == 0)
			return migration->error->details[i]->text;
	switch (migration->state) {
	case HAUL__V1__MIGRATION_STATE__RUNNING:
		if (strcmp(migration->stage, "fill") == 0)
			return "it runs at the destination, which fills in its memory";
		return "on its way; it runs at the source until it is over";
	case HAUL__V1__MIGRATION_STATE__COMPLETED:
		return "it runs at the destination";
	case HAUL__V1__MIGRATION_STATE__ABORTED:
	case HAUL__V1__MIGRATION_STATE__CANCELLED:
		return "it runs where it was, at the source";
	case HAUL__V1__MIGRATION_STATE__IN_DOUBT:
		return "frozen at the source until the destination answers";
	case HAUL__V1__MIGRATION_STATE__LOST:
		return "no copy of it is left";
	default:
		return "not known to this haulctl";
	}
}

static void print_rounds(FILE *out, const Haul__V1__Migration *migration)
{
	char bytes[RENDER_NUMBER], duration[RENDER_NUMBER], frozen[RENDER_NUMBER];

	for (size_t i = 0; i < migration->n_rounds; i++) {
		const Haul__V1__Round *round = migration->rounds[i];
		format_bytes(bytes, (double)round->bytes);
		format_duration(duration, round->duration_ms);
		format_duration(frozen, round->frozen_ms);
		(void)fprintf(out,
			      "  round %-6zu%" PRIu64 " pages sent, %" PRIu64 " clean, %" PRIu64
			      " unchanged, %s in %s, frozen %s\n",
			      i + 1, round->pages_sent, round->pages_skipped, round->pages_same,
			      bytes, duration, frozen);
	}
}

static void print_prediction(FILE *out, const Haul__V1__Migration *migration)
{
	char text[6 * RENDER_NUMBER], a[RENDER_NUMBER], b[RENDER_NUMBER], c[RENDER_NUMBER];

	if (migration->predicted_downtime_ms <= 0)
		return;
	format_duration(a, migration->predicted_downtime_ms);
	format_duration(b, migration->predicted_dump_ms);
	format_duration(c, migration->predicted_restore_ms);
	int used = snprintf(text, sizeof(text), "%s", a);
	if (migration->predicted_restore_ms > 0)
		used += snprintf(text + used, sizeof(text) - (size_t)used, " (dump %s, restore %s)",
				 b, c);
	if (migration->downtime_ms > 0)
		(void)snprintf(text + used, sizeof(text) - (size_t)used, ", it was %+.0f %%",
			       100 * migration->prediction_error_ms /
				   migration->predicted_downtime_ms);
	field(out, "predicted", text);
}

static void print_restore(FILE *out, const Haul__V1__Migration *migration)
{
	char text[4 * RENDER_NUMBER], bytes[RENDER_NUMBER], took[RENDER_NUMBER];

	if (migration->lazy_pages == 0) {
		if (migration->restore[0] != '\0')
			field(out, "restore", migration->restore);
		return;
	}
	format_bytes(bytes, (double)migration->lazy_pages * PAGE_SIZE_SHOWN);
	format_duration(took, migration->fill_ms);
	(void)snprintf(text, sizeof(text),
		       "lazy (%s filled in, %s%s, %" PRIu64 " pages waited for)", bytes,
		       migration->fill_ms > 0 ? "in " : "not yet",
		       migration->fill_ms > 0 ? took : "", migration->lazy_faults);
	field(out, "restore", text);
	if (migration->late_pages == 0)
		return;
	format_bytes(bytes, (double)migration->late_pages * PAGE_SIZE_SHOWN);
	format_bytes(took, (double)migration->late_missing * PAGE_SIZE_SHOWN);
	(void)snprintf(text, sizeof(text),
		       "%s after the commit, %" PRIu64 " pages on demand, %s missing", bytes,
		       migration->late_faults, migration->late_missing > 0 ? took : "none");
	field(out, "fetched", text);
}

static void print_times(FILE *out, const Haul__V1__Migration *migration)
{
	char text[4 * RENDER_NUMBER], a[RENDER_NUMBER], b[RENDER_NUMBER], c[RENDER_NUMBER];

	if (migration->downtime_ms > 0) {
		format_duration(a, migration->downtime_ms);
		format_duration(b, migration->criu_freeze_ms);
		format_duration(c, migration->criu_restore_ms);
		(void)snprintf(text, sizeof(text), "%s (dump %s, restore %s)", a, b, c);
		field(out, "downtime", text);
	}
	print_prediction(out, migration);
	print_restore(out, migration);
	if (migration->total_ms > 0) {
		format_duration(a, migration->total_ms);
		field(out, "total", a);
	}
	format_bytes(a, (double)migration->bytes_on_wire);
	field(out, "on the wire", a);
}

void print_report(FILE *out, const Haul__V1__Migration *migration)
{
	char text[2 * RENDER_NUMBER];
	bool is_source = strcmp(migration->role, "destination") != 0;

	(void)fprintf(out, "migration ");
	print_clean(out, migration->id);
	(void)fprintf(out, ": %s\n", state_name(migration->state));
	field(out, "workload", migration->workload);
	field(out, is_source ? "to" : "from", migration->peer);
	field(out, "now", whereabouts(migration));
	if (migration->restored_pid != 0) {
		(void)snprintf(text, sizeof(text), "%d at the destination",
			       migration->restored_pid);
		field(out, "pid", text);
	}
	if (!state_is_over(migration->state))
		field(out, "stage", migration->stage);
	format_moment(text, migration->started_unix_ms);
	field(out, "started", text);
	print_times(out, migration);
	if (migration->cpu_share_percent != 0) {
		(void)snprintf(text, sizeof(text), "slowed down to %u %% of its processor time",
			       migration->cpu_share_percent);
		field(out, "workload is", text);
	}
	if (migration->tracking[0] != '\0')
		field(out, "tracking", migration->tracking);
	print_rounds(out, migration);
	for (size_t i = 0; i < migration->n_notes; i++)
		field(out, "note", migration->notes[i]);
	if (migration->doubt[0] != '\0')
		field(out, "in doubt", migration->doubt);
}

void print_migration_error(const Haul__V1__Migration *migration)
{
	scoped(status) status *error = status_from_wire(migration->error);

	(void)fflush(stdout);
	if (error != NULL && migration->doubt[0] == '\0')
		print_status(error, false);
}

static void list_row(const Haul__V1__Migration *migration, char moment[RENDER_NUMBER],
		     const char *cells[LIST_COLUMNS])
{
	format_moment(moment, migration->started_unix_ms);
	cells[0] = migration->id;
	cells[1] = state_name(migration->state);
	cells[2] = migration->stage;
	cells[3] = migration->role;
	cells[4] = migration->workload;
	cells[5] = migration->peer;
	cells[6] = moment;
	cells[7] = migration->doubt;
	for (size_t i = 0; i < LIST_COLUMNS; i++)
		if (cells[i][0] == '\0')
			cells[i] = "-";
}

static void print_row(FILE *out, const char *const cells[LIST_COLUMNS],
		      const size_t widths[LIST_COLUMNS])
{
	for (size_t i = 0; i < LIST_COLUMNS; i++) {
		print_clean(out, cells[i]);
		if (i + 1 < LIST_COLUMNS)
			(void)fprintf(out, "%*s", (int)(widths[i] - strlen(cells[i]) + 2), "");
	}
	(void)fputc('\n', out);
}

void print_list(FILE *out, const Haul__V1__ListResponse *list)
{
	static const char *const names[LIST_COLUMNS] = {"ID",	    "STATE", "STAGE", "ROLE",
							"WORKLOAD", "PEER",  "SINCE", "DOUBT"};
	const char *cells[LIST_COLUMNS];
	char moment[RENDER_NUMBER];
	size_t widths[LIST_COLUMNS];

	for (size_t i = 0; i < LIST_COLUMNS; i++)
		widths[i] = strlen(names[i]);
	for (size_t m = 0; m < list->n_migrations; m++) {
		list_row(list->migrations[m], moment, cells);
		for (size_t i = 0; i < LIST_COLUMNS; i++)
			if (strlen(cells[i]) > widths[i])
				widths[i] = strlen(cells[i]);
	}
	print_row(out, names, widths);
	for (size_t m = 0; m < list->n_migrations; m++) {
		list_row(list->migrations[m], moment, cells);
		print_row(out, cells, widths);
	}
}

void print_check(FILE *out, const Haul__V1__CheckResponse *check)
{
	size_t width = 0;

	for (size_t i = 0; i < check->n_findings; i++)
		if (strlen(check->findings[i]->check) > width)
			width = strlen(check->findings[i]->check);
	for (size_t i = 0; i < check->n_findings; i++) {
		const Haul__V1__Finding *finding = check->findings[i];
		(void)fprintf(out, "%-4s  ", finding->ok ? "ok" : "FAIL");
		print_clean(out, finding->check);
		(void)fprintf(out, "%*s  ", (int)(width - strlen(finding->check)), "");
		print_clean(out, finding->text);
		(void)fputc('\n', out);
	}
	(void)fprintf(out, "%s\n",
		      check->migratable ? "it can be migrated" : "it cannot be migrated");
}

static void format_end(char *text, size_t room, int64_t unix_ms)
{
	char moment[RENDER_NUMBER];
	int64_t days = (unix_ms / 1000 - (int64_t)time(NULL)) / (24 * 60 * 60);

	format_moment(moment, unix_ms);
	if (unix_ms / 1000 > (int64_t)time(NULL))
		(void)snprintf(text, room, "%s (in %" PRId64 " days)", moment, days);
	else
		(void)snprintf(text, room, "%s (OVER)", moment);
}

void print_node(FILE *out, const Haul__V1__NodeInfo *node)
{
	char text[4 * RENDER_NUMBER];

	(void)fprintf(out, "node ");
	print_clean(out, node->node);
	(void)fprintf(out, "%s\n", node->draining ? " (draining: takes no new work)" : "");
	field(out, "version", node->version);
	(void)snprintf(text, sizeof(text), "%u", node->protocol);
	field(out, "protocol", text);
	field(out, "criu", node->criu[0] != '\0' ? node->criu : "not usable");
	if (node->criu_trouble[0] != '\0')
		field(out, "", node->criu_trouble);
	(void)fprintf(out, "  %-*s", FIELD_WIDTH, "kernel");
	print_clean(out, node->kernel);
	(void)fputc(' ', out);
	print_clean(out, node->machine);
	(void)fputc('\n', out);
	field(out, "tracking",
	      node->dirty_tracking ? "soft-dirty: memory is copied ahead while the workload runs"
				   : "none: the kernel cannot tell which pages changed");
	field(out, "restore",
	      node->lazy_restore ? "lazy: a workload goes on before all memory is in place"
				 : "eager: all memory is in place before a workload goes on");
	if (node->lazy_trouble[0] != '\0')
		field(out, "", node->lazy_trouble);
	field(out, "nng", node->nng);
	field(out, "openssl", node->openssl);
	(void)snprintf(text, sizeof(text), "%u active, %u in doubt", node->migrations_active,
		       node->migrations_in_doubt);
	field(out, "migrations", text);
	format_moment(text, node->started_unix_ms);
	field(out, "started", text);
	if (node->identity[0] != '\0') {
		field(out, "identity", node->identity);
		format_end(text, sizeof(text), node->certificate_expires_unix_ms);
		field(out, "expires", text);
	}
	if (node->crl_expires_unix_ms != 0) {
		format_end(text, sizeof(text), node->crl_expires_unix_ms);
		field(out, "crl ends", text);
	}
}
