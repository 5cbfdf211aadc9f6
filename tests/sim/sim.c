/* SPDX-License-Identifier: Apache-2.0 */
/* sim: which runs there are, each in a process of its own, and what came of them.
 *
 * usage: sim                      every fault at every point, and a sample of all pairs
 *        sim --pairs N|all        so many pairs
 *        sim --seed N             another sample
 *        sim --first              ends at the first failure
 *        sim --only WORDS         of "fast,slow,big,after-writes,messages,operators,failing,pairs"
 *                               and the
 *                                 faults' names
 *        sim --replay SPEC        one run, told: "kill-a@17,power-b@23", "slow,cut@9",
 *                                 "big-a:400,power-a@30"
 * HAUL_FULL=1 in the environment: all pairs. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim.h"

enum { DEFAULT_PAIRS = 3000, SHOWN_FAILURES = 10, MARGIN = 40 };

/* What --only leaves. */
static struct {
	bool fast, slow, big, pairs, after_writes, messages, operators, failing;
	bool faults[64];
} wanted;

/* Shared with the processes that runs are in. */
static struct shared {
	struct outcome outcome;
	unsigned runs, struck, failures;
	bool stops_at_first;
	uint64_t chance;
} *all;

static uint64_t chance(void)
{
	/* xorshift64* */
	all->chance ^= all->chance >> 12;
	all->chance ^= all->chance << 25;
	all->chance ^= all->chance >> 27;
	return (all->chance * UINT64_C(2685821657736338717)) >> 16;
}

static void print_plan(const struct plan *plan, FILE *file)
{
	const char *comma = "";

	if (plan->is_slow) {
		(void)fprintf(file, "slow");
		comma = ",";
	}
	if (plan->big_journal != 0) {
		(void)fprintf(file, "%sbig-%c:%u", comma, 'a' + plan->big_journal - 1,
			      plan->big_room);
		comma = ",";
	}
	for (unsigned i = 0; i < plan->count; i++, comma = ",")
		(void)fprintf(file, "%s%s@%u", comma, fault_menu[plan->faults[i].fault].name,
			      plan->faults[i].point);
}

static void report(const struct plan *plan)
{
	if (++all->failures > SHOWN_FAILURES)
		return;
	(void)fflush(stdout);
	(void)fprintf(stderr, "FAILED: %s: sim --replay ", all->outcome.text);
	print_plan(plan, stderr);
	(void)fprintf(stderr, "\n");
}

static void summary(void)
{
	(void)printf("%u runs, %u struck as planned, %u failed\n", all->runs, all->struck,
		     all->failures);
}

/* One run in a child; the product may not fork, its test may. */
static void run(const struct plan *plan)
{
	int ended = 0;

	all->outcome.is_over = all->outcome.has_failed = false;
	all->outcome.hit = 0;
	(void)fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		sim_run(plan, &all->outcome, false);
	if (pid < 0 || waitpid(pid, &ended, 0) != pid) {
		perror("sim");
		exit(2);
	}
	if (!all->outcome.is_over) {
		all->outcome.has_failed = true;
		(void)snprintf(all->outcome.text, sizeof(all->outcome.text),
			       "the run died (wait status %#x)", (unsigned)ended);
	}
	all->runs++;
	all->struck += all->outcome.hit == plan->count ? 1 : 0;
	if (!all->outcome.has_failed)
		return;
	report(plan);
	if (all->stops_at_first) {
		summary();
		exit(1);
	}
}

static bool is_for_messages(const struct fault *fault)
{
	return fault->kind == FAULT_LOSE || fault->kind == FAULT_TWICE || fault->kind == FAULT_LATE;
}

/* May this fault be one of a pair? A disk that is full, or a state directory that is lost, and a
 * second fault may be one too many: docs/safety.md says which. */
static bool is_for_pairs(const struct fault *fault)
{
	return fault->kind != FAULT_FULL && fault->kind != FAULT_WIPE &&
	       fault->kind != FAULT_SECOND && fault->kind != FAULT_EIO;
}

/* What a disk keeps does not depend on how long CRIU takes. */
static bool is_for_slow(const struct fault *fault)
{
	return (fault->kind != FAULT_POWER || fault->mode == DISK_ALL) &&
	       fault->kind != FAULT_FULL && fault->kind != FAULT_SECOND && fault->kind != FAULT_EIO;
}

/* Every fault at every point of the plan, as its first. */
static void singles(const struct plan *base, const char *name)
{
	static uint8_t kinds[POINTS_MOST];
	struct plan plan = *base;
	unsigned runs = all->runs;

	run(&plan);
	unsigned points = all->outcome.points;
	memcpy(kinds, all->outcome.kinds, sizeof(kinds));
	plan.count = 1;
	for (unsigned point = 1; point <= points; point++) {
		for (unsigned fault = 0; fault < fault_count; fault++) {
			if (!wanted.faults[fault] ||
			    (plan.is_slow && !is_for_slow(&fault_menu[fault])) ||
			    (is_for_messages(&fault_menu[fault]) && kinds[point] != POINT_MESSAGE))
				continue;
			plan.faults[0] = (struct planned){fault, point};
			run(&plan);
		}
	}
	(void)printf("%s: %u points, %u runs with one fault each\n", name, points,
		     all->runs - runs);
}

/* Each way to lose power at each write of a node whose journal is rewritten on the way. */
static void rewritten(int node, unsigned room)
{
	static uint8_t kinds[POINTS_MOST];
	struct plan plan = {.big_journal = 1 + node, .big_room = room};

	run(&plan);
	unsigned points = all->outcome.points;
	memcpy(kinds, all->outcome.kinds, sizeof(kinds));
	plan.count = 1;
	for (unsigned point = 1; point <= points; point++) {
		for (unsigned fault = 0; fault < fault_count; fault++) {
			const struct fault *one = &fault_menu[fault];
			if (!wanted.faults[fault] || one->kind != FAULT_POWER ||
			    one->node != node || one->ms > 2000 ||
			    kinds[point] != POINT_DISK + node)
				continue;
			plan.faults[0] = (struct planned){fault, point};
			run(&plan);
		}
	}
}

/* In a process of its own: the full journal is there for all of its runs. */
static void big_journals(int node)
{
	static const unsigned rooms[] = {60, 200, 400, 600, 800, 1000};
	int ended;

	(void)fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		sim_fill_journal(node);
		for (size_t i = 0; i < array_len(rooms); i++)
			rewritten(node, rooms[i]);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &ended, 0) != pid || ended != 0)
		exit(1);
}

/* The second point is counted on from the first: a fault adds points. */
static void pair(const struct plan *base, unsigned points, unsigned first, unsigned second_fault,
		 unsigned second_point)
{
	struct plan plan = *base;

	(void)points;
	plan.count = 2;
	plan.faults[0] = (struct planned){first % fault_count, first / fault_count + 1};
	plan.faults[1] = (struct planned){second_fault, second_point};
	if (wanted.faults[plan.faults[0].fault] && wanted.faults[second_fault])
		run(&plan);
}

static void any_pair(const struct plan *base, unsigned points, unsigned first,
		     unsigned second_fault, unsigned second_point)
{
	if (is_for_pairs(&fault_menu[first % fault_count]) &&
	    is_for_pairs(&fault_menu[second_fault]))
		pair(base, points, first, second_fault, second_point);
}

static void sampled_pairs(const struct plan *base, unsigned count)
{
	run(base);
	unsigned points = all->outcome.points, until = all->runs + count;

	while (all->runs < until) {
		unsigned first = (unsigned)(chance() % ((uint64_t)points * fault_count));
		unsigned point = first / fault_count + 1;
		unsigned second = point + (unsigned)(chance() % (points - point + MARGIN));
		any_pair(base, points, first, (unsigned)(chance() % fault_count), second);
	}
}

static void all_pairs(const struct plan *base)
{
	run(base);
	unsigned points = all->outcome.points;

	for (unsigned first = 0; first < points * fault_count; first++) {
		for (unsigned second = first / fault_count + 1; second <= points + MARGIN; second++)
			for (unsigned fault = 0; fault < fault_count; fault++)
				any_pair(base, points, first, fault, second);
	}
}

/* A hauld that dies right behind a write, and its machine soon after the next one has read it. */
static void after_writes(const struct plan *base)
{
	static uint8_t kinds[POINTS_MOST];
	enum { SOON = 70 };

	run(base);
	unsigned points = all->outcome.points;
	memcpy(kinds, all->outcome.kinds, sizeof(kinds));
	for (unsigned first = 0; first < points * fault_count; first++) {
		const struct fault *fault = &fault_menu[first % fault_count];
		unsigned point = first / fault_count + 1;
		if (fault->kind != FAULT_KILL || fault->ms > 1000 ||
		    kinds[point] != POINT_DISK + fault->node)
			continue;
		for (unsigned second = 0; second < fault_count; second++) {
			const struct fault *then = &fault_menu[second];
			for (unsigned after = 1;
			     after < SOON && then->kind == FAULT_POWER &&
			     then->node == fault->node && then->ms < 3000 && then->mode == DISK_ALL;
			     after++)
				pair(base, points, first, second, point + after);
		}
	}
}

/* Two messages, one soon after the other. */
static void messages(const struct plan *base)
{
	static uint8_t kinds[POINTS_MOST];
	enum { SOON = 30 };

	run(base);
	unsigned points = all->outcome.points;
	memcpy(kinds, all->outcome.kinds, sizeof(kinds));
	for (unsigned first = 0; first < points * fault_count; first++) {
		unsigned point = first / fault_count + 1;
		if (!is_for_messages(&fault_menu[first % fault_count]) ||
		    kinds[point] != POINT_MESSAGE)
			continue;
		for (unsigned second = 0; second < fault_count; second++) {
			for (unsigned after = 1;
			     after < SOON && is_for_messages(&fault_menu[second]); after++)
				pair(base, points, first, second, point + after);
		}
	}
}

/* A disk that fails, and soon after the other side is not heard any more, for a while. With a loss
 * of power it may be one too many: docs/safety.md says when. */
static void failing(const struct plan *base)
{
	enum { SOON = 24 };

	run(base);
	unsigned points = all->outcome.points;
	for (unsigned first = 0; first < points * fault_count; first++) {
		if (fault_menu[first % fault_count].kind != FAULT_EIO)
			continue;
		for (unsigned second = 0; second < fault_count; second++) {
			const struct fault *then = &fault_menu[second];
			for (unsigned after = 1;
			     after < SOON && then->kind == FAULT_CUT && then->ms == 20000;
			     after += 3)
				pair(base, points, first, second, first / fault_count + 1 + after);
		}
	}
}

/* The source is left alone with its doubt, or the destination with its copy, and an operator comes
 * before that ends. */
static void operators(const struct plan *base)
{
	enum { SOON = 24 };

	run(base);
	unsigned points = all->outcome.points;
	for (unsigned first = 0; first < points * fault_count; first++) {
		const struct fault *fault = &fault_menu[first % fault_count];
		if (fault->ms < 20000 || fault->ms > 60000 || is_for_messages(fault))
			continue;
		for (unsigned second = 0; second < fault_count; second++) {
			for (unsigned after = 1;
			     after < SOON && fault_menu[second].kind == FAULT_RESOLVE; after += 3)
				pair(base, points, first, second, first / fault_count + 1 + after);
		}
	}
}

static bool want(const char *word)
{
	bool *const scenes[] = {&wanted.fast,	   &wanted.slow,	 &wanted.big,
				&wanted.pairs,	   &wanted.after_writes, &wanted.messages,
				&wanted.operators, &wanted.failing};
	static const char *const names[] = {"fast",	    "slow",	"big",	     "pairs",
					    "after-writes", "messages", "operators", "failing"};
	bool is_known = false;

	for (size_t i = 0; i < array_len(scenes); i++) {
		if (strcmp(word, names[i]) == 0 ||
		    (strcmp(word, "all") == 0 && scenes[i] != &wanted.messages))
			*scenes[i] = is_known = true;
	}
	for (unsigned i = 0; i < fault_count; i++) {
		if (strcmp(word, fault_menu[i].name) == 0 || strcmp(word, "all") == 0)
			wanted.faults[i] = is_known = true;
	}
	return is_known;
}

static void want_only(char *words)
{
	char *rest = NULL;

	for (char *word = strtok_r(words, ",", &rest); word != NULL;
	     word = strtok_r(NULL, ",", &rest)) {
		if (!want(word)) {
			(void)fprintf(stderr, "sim: what is \"%s\"?\n", word);
			exit(2);
		}
	}
}

static bool parse_word(struct plan *plan, char *word)
{
	char *at = strchr(word, '@'), *colon = strchr(word, ':');

	if (strcmp(word, "slow") == 0) {
		plan->is_slow = true;
		return true;
	}
	if (colon != NULL && strncmp(word, "big-", 4) == 0) {
		plan->big_journal = 1 + word[4] - 'a';
		plan->big_room = (unsigned)strtoul(colon + 1, NULL, 10);
		return true;
	}
	if (at == NULL || plan->count == PLAN_MOST)
		return false;
	*at = '\0';
	for (unsigned i = 0; i < fault_count; i++) {
		if (strcmp(fault_menu[i].name, word) != 0)
			continue;
		plan->faults[plan->count++] =
		    (struct planned){i, (unsigned)strtoul(at + 1, NULL, 10)};
		return true;
	}
	return false;
}

static void replay(char *spec)
{
	struct plan plan = {0};
	char *rest = NULL;

	for (char *word = strtok_r(spec, ",", &rest); word != NULL;
	     word = strtok_r(NULL, ",", &rest)) {
		if (!parse_word(&plan, word)) {
			(void)fprintf(stderr, "sim: what is \"%s\"?\n", word);
			exit(2);
		}
	}
	pid_t pid = fork();
	if (pid == 0)
		sim_run(&plan, &all->outcome, true);
	if (waitpid(pid, NULL, 0) != pid)
		exit(2);
	(void)printf("%s\n", !all->outcome.is_over     ? "the run died"
			     : all->outcome.has_failed ? all->outcome.text
						       : "ok");
	exit(all->outcome.is_over && !all->outcome.has_failed ? 0 : 1);
}

static void run_all(const char *pairs)
{
	struct plan fast = {0}, slow = {.is_slow = true};

	if (wanted.fast)
		singles(&fast, "fast");
	if (wanted.slow)
		singles(&slow, "slow");
	unsigned runs = all->runs;
	if (wanted.big) {
		big_journals(A);
		big_journals(B);
		(void)printf("a journal that is rewritten on the way: %u runs\n", all->runs - runs);
	}
	runs = all->runs;
	if (wanted.after_writes) {
		after_writes(&fast);
		(void)printf("killed and cut off after a write: %u runs\n", all->runs - runs);
	}
	runs = all->runs;
	if (wanted.operators) {
		operators(&fast);
		(void)printf("left alone, and an operator comes: %u runs\n", all->runs - runs);
	}
	runs = all->runs;
	if (wanted.failing) {
		failing(&fast);
		(void)printf("a disk fails, then the link: %u runs\n", all->runs - runs);
	}
	runs = all->runs;
	if (wanted.messages) {
		messages(&fast);
		(void)printf("two messages: %u runs\n", all->runs - runs);
	}
	runs = all->runs;
	if (wanted.pairs && pairs != NULL && strcmp(pairs, "all") == 0)
		all_pairs(&fast);
	else if (wanted.pairs)
		sampled_pairs(&fast,
			      pairs != NULL ? (unsigned)strtoul(pairs, NULL, 10) : DEFAULT_PAIRS);
	if (wanted.pairs)
		(void)printf("pairs of faults: %u runs\n", all->runs - runs);
	summary();
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"pairs", required_argument, NULL, 'p'},
						{"seed", required_argument, NULL, 's'},
						{"first", no_argument, NULL, 'f'},
						{"only", required_argument, NULL, 'o'},
						{"replay", required_argument, NULL, 'r'},
						{NULL, 0, NULL, 0}};
	const char *pairs = getenv("HAUL_FULL") != NULL ? "all" : NULL;
	char everything[] = "all", *only = everything;

	all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		return 2;
	all->chance = 1;
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'p')
			pairs = optarg;
		else if (option == 's')
			all->chance = strtoull(optarg, NULL, 10) * 2 + 1;
		else if (option == 'f')
			all->stops_at_first = true;
		else if (option == 'o')
			only = optarg;
		else if (option == 'r')
			replay(optarg);
		else
			return 2;
	}
	want_only(only);
	run_all(pairs);
	return all->failures == 0 ? 0 : 1;
}
