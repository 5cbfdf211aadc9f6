/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/progress.h"

#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cmd/haulctl/render.h"
#include "proto/defs.h"

enum { LINE = 256, COLUMNS = 80 };

void progress_start(struct progress *progress, FILE *out)
{
	*progress = (struct progress){.out = out, .is_terminal = isatty(fileno(out)) == 1};
}

static size_t columns(const struct progress *progress)
{
	struct winsize size = {0};

	if (ioctl(fileno(progress->out), TIOCGWINSZ, &size) != 0 || size.ws_col < 20)
		return COLUMNS;
	return size.ws_col < LINE ? size.ws_col : LINE;
}

static void describe(const Haul__V1__Migration *migration, char line[LINE])
{
	char bytes[RENDER_NUMBER], rate[RENDER_NUMBER], downtime[RENDER_NUMBER];
	uint64_t pages = 0;
	int used;

	for (size_t i = 0; i < migration->n_rounds; i++)
		pages += migration->rounds[i]->pages_sent;
	format_bytes(bytes, (double)migration->bytes_on_wire);
	used = snprintf(line, LINE, "%.40s: round %zu, %" PRIu64 " pages, %s", migration->stage,
			migration->n_rounds, pages, bytes);
	if (migration->rate_bytes_per_s > 0 && used > 0 && used < LINE) {
		format_bytes(rate, (double)migration->rate_bytes_per_s);
		used += snprintf(line + used, (size_t)(LINE - used), ", %s/s", rate);
	}
	if (migration->predicted_downtime_ms > 0 && used > 0 && used < LINE) {
		format_duration(downtime, migration->predicted_downtime_ms);
		used +=
		    snprintf(line + used, (size_t)(LINE - used), ", downtime about %s", downtime);
	}
	if (migration->cpu_share_percent > 0 && used > 0 && used < LINE)
		(void)snprintf(line + used, (size_t)(LINE - used), ", slowed to %u %%",
			       migration->cpu_share_percent);
}

void progress_clear(struct progress *progress)
{
	if (progress->is_line_open)
		(void)fprintf(progress->out, "\r\033[K");
	progress->is_line_open = false;
	(void)fflush(progress->out);
}

static void show_doubt(struct progress *progress, const Haul__V1__Migration *migration)
{
	progress_clear(progress);
	(void)fprintf(progress->out, "in doubt: ");
	print_clean(progress->out, migration->doubt);
	(void)fputc('\n', progress->out);
}

void progress_show(struct progress *progress, const Haul__V1__Migration *migration)
{
	char line[LINE];
	bool is_step = strcmp(progress->stage, migration->stage) != 0 ||
		       progress->rounds != migration->n_rounds;

	if (migration->state == HAUL__V1__MIGRATION_STATE__IN_DOUBT &&
	    progress->state != migration->state)
		show_doubt(progress, migration);
	progress->state = migration->state;
	(void)snprintf(progress->stage, sizeof(progress->stage), "%s", migration->stage);
	progress->rounds = migration->n_rounds;
	describe(migration, line);
	if (progress->is_terminal) {
		line[columns(progress) - 1] = '\0';
		(void)fprintf(progress->out, "\r");
		print_clean(progress->out, line);
		(void)fprintf(progress->out, "\033[K");
		progress->is_line_open = true;
	} else if (is_step) {
		print_clean(progress->out, line);
		(void)fputc('\n', progress->out);
	}
	(void)fflush(progress->out);
}
