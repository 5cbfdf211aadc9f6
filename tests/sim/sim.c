/* SPDX-License-Identifier: Apache-2.0 */
/* sim: which runs there are, each in a process of its own, and what came of them.
 *
 * usage: sim                 every fault at every point, chosen pairs, a sample of all pairs
 *        sim --pairs N       so many in the sample
 *        sim --seed N        another sample
 *        sim --all-pairs     instead: each pair of a crash of either hauld, with a restart at
 *                            once or only when all that is held has been given up, and a cut
 *                            link, the second at each point that there is after the first;
 *                            with --only of those faults; "slow", "far" … as in --replay
 *        sim --first         ends at the first failure
 *        sim --only WORDS    scenes and faults (--help), with commas; no fault: all of them
 *        sim --replay SPEC   one run, told: "kill-a@17,power-b@23", "slow,cut@9",
 *                            "restless,kill-a@80", "big-a:400,power-a@30"
 *        sim --help          the words
 *
 * HAUL_FULL=1 in the environment: a larger sample. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim.h"

enum { DEFAULT_PAIRS = 3000, FULL_PAIRS = 100000, SHOWN_FAILURES = 10, MARGIN = 40 };

static bool is_wanted[FAULTS_MOST]; /* of the faults; what --only leaves */

/* Shared with the processes that runs are in. */
static struct shared {
	struct outcome outcome;
	unsigned runs, struck, failures;
	bool stops_at_first, is_stopped;
	uint64_t chance;
} *all;
static bool is_inside; /* of a run's process */

static uint64_t chance(void)
{
	/* xorshift64* */
	all->chance ^= all->chance >> 12;
	all->chance ^= all->chance << 25;
	all->chance ^= all->chance >> 27;
	return (all->chance * UINT64_C(2685821657736338717)) >> 16;
}

static void report(const struct plan *plan)
{
	if (++all->failures > SHOWN_FAILURES)
		return;
	(void)fflush(stdout);
	(void)fprintf(stderr, "FAILED: %s: sim --replay ", all->outcome.text);
	plan_print(plan, stderr);
	(void)fprintf(stderr, "\n");
}

static void summary(void)
{
	(void)printf("%u runs, %u struck as planned, %u failed\n", all->runs, all->struck,
		     all->failures);
}

/* A run is over: the process that it was in ended so. */
static void account(const struct plan *plan, int ended)
{
	struct outcome *outcome = &all->outcome;

	if (!outcome->is_over) {
		outcome->has_failed = true;
		(void)snprintf(outcome->text, sizeof(outcome->text),
			       "the run died (wait status %#x)", (unsigned)ended);
	}
	all->runs++;
	all->struck += outcome->hit == plan->count ? 1 : 0;
	if (outcome->has_failed && !all->is_stopped)
		report(plan);
	all->is_stopped |= outcome->has_failed && all->stops_at_first;
	if (all->is_stopped) {
		if (!is_inside)
			summary();
		exit(1);
	}
	outcome->is_over = outcome->has_failed = false;
	outcome->hit = 0;
}

/* One run in a child; the product may not fork, its test may. */
static void run(const struct plan *plan)
{
	int ended = 0;

	(void)fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		is_inside = true;
		sim_run(plan, &all->outcome, false);
	}
	if (pid < 0 || waitpid(pid, &ended, 0) != pid) {
		perror("sim");
		exit(2);
	}
	account(plan, ended);
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

/* --- one fault --- */

/* What a run without a fault goes through. */
struct course {
	unsigned points;
	uint8_t kinds[POINTS_MOST];
};

static void course_of(const struct plan *base, struct course *ret_course)
{
	run(base);
	ret_course->points = all->outcome.points;
	memcpy(ret_course->kinds, all->outcome.kinds, sizeof(ret_course->kinds));
}

/* Each fault at each point where it is meant. */
static void singles(const struct plan *base,
		    bool (*is_meant)(const struct fault *fault, uint8_t kind))
{
	static struct course course;
	struct plan plan = *base;

	course_of(&plan, &course);
	plan.count = 1;
	for (unsigned point = 1; point <= course.points; point++) {
		for (unsigned fault = 0; fault < fault_count; fault++) {
			if (!is_wanted[fault] || !is_meant(&fault_menu[fault], course.kinds[point]))
				continue;
			plan.faults[0] = (struct planned){fault, point};
			run(&plan);
		}
	}
}

static void fast(void)
{
	singles(&(struct plan){0}, fault_fits);
}

static bool fits_slow(const struct fault *fault, uint8_t kind)
{
	return is_for_slow(fault) && fault_fits(fault, kind);
}

static void slow(void)
{
	singles(&(struct plan){.is_slow = true}, fits_slow);
}

static bool fits_restless(const struct fault *fault, uint8_t kind)
{
	bool is_meant = fault->kind == FAULT_KILL || fault->kind == FAULT_CRIU ||
			fault->kind == FAULT_CANCEL || fault->kind == FAULT_CUT ||
			fault->kind == FAULT_STOP;

	return is_meant && fault->ms <= 20000 && fault_fits(fault, kind);
}

/* Both holders of memory at once are for the model: one of two always lives here. */
static bool fits_lazy(const struct fault *fault, uint8_t kind)
{
	bool is_meant = fault->kind == FAULT_KILL || fault->kind == FAULT_CRIU ||
			fault->kind == FAULT_CANCEL || fault->kind == FAULT_CUT ||
			fault->kind == FAULT_STOP || fault->kind == FAULT_LOSE ||
			fault->kind == FAULT_TWICE || fault->kind == FAULT_LATE ||
			(fault->kind == FAULT_POWER && fault->node == A);

	return fault->kind == FAULT_GUARD || (is_meant && fault_fits(fault, kind));
}

static void lazy(void)
{
	singles(&(struct plan){.is_lazy = true}, fits_lazy);
}

static void restless(void)
{
	singles(&(struct plan){.is_restless = true}, fits_restless);
}

static bool fits_distance(const struct fault *fault, uint8_t kind)
{
	return (fault->kind == FAULT_KILL || fault->kind == FAULT_CUT ||
		fault->kind == FAULT_STOP || fault->kind == FAULT_LOSE) &&
	       fault_fits(fault, kind);
}

/* A destination that is so busy, or so far, that each connection takes longer than half a lease:
 * the lease is kept all the same. */
static void far(void)
{
	singles(&(struct plan){.is_slow = true, .is_far = true}, fits_distance);
}

/* What memory goes over takes all of a narrow link, for longer than a lease. */
static void narrow(void)
{
	singles(&(struct plan){.is_narrow = true}, fits_distance);
}

/* A loss of power at a write of that node. */
static bool fits_rewrite(const struct fault *fault, uint8_t kind)
{
	return fault->kind == FAULT_POWER && fault->ms <= 2000 && kind == POINT_DISK + fault->node;
}

static void rewritten(int node)
{
	static const unsigned rooms[] = {60, 200, 400, 600, 800, 1000};

	sim_fill_journal(node);
	for (size_t i = 0; i < array_len(rooms); i++)
		singles(&(struct plan){.big_journal = 1 + node, .big_room = rooms[i]},
			fits_rewrite);
}

/* Each in a process of its own: the full journal is there for all of its runs. */
static void big(void)
{
	for (int node = 0; node < NODES; node++) {
		int ended;
		(void)fflush(stdout);
		pid_t pid = fork();
		if (pid == 0) {
			rewritten(node);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &ended, 0) != pid || ended != 0)
			exit(1);
	}
}

/* --- two faults --- */

static bool is_killed_after_write(const struct fault *fault, uint8_t kind)
{
	return fault->kind == FAULT_KILL && fault->ms <= 1000 && kind == POINT_DISK + fault->node;
}

static bool is_power_of_it(const struct fault *first, const struct fault *second)
{
	return second->kind == FAULT_POWER && second->node == first->node && second->ms < 3000 &&
	       second->mode == DISK_ALL;
}

static bool is_of_message(const struct fault *fault, uint8_t kind)
{
	return kind == POINT_MESSAGE && !fault_fits(fault, POINT_PLAIN);
}

static bool is_of_message_too(const struct fault *first, const struct fault *second)
{
	(void)first;
	return !fault_fits(second, POINT_PLAIN);
}

static bool is_failing_disk(const struct fault *fault, uint8_t kind)
{
	(void)kind;
	return fault->kind == FAULT_EIO;
}

static bool is_long_cut(const struct fault *first, const struct fault *second)
{
	(void)first;
	return second->kind == FAULT_CUT && second->ms == 20000;
}

static bool is_left_alone(const struct fault *fault, uint8_t kind)
{
	(void)kind;
	return fault->ms >= 20000 && fault->ms <= 60000 && fault_fits(fault, POINT_PLAIN);
}

static bool is_operator(const struct fault *first, const struct fault *second)
{
	(void)first;
	return second->kind == FAULT_RESOLVE;
}

struct pairing {
	bool (*is_first)(const struct fault *fault, uint8_t kind);
	bool (*is_second)(const struct fault *first, const struct fault *second);
	unsigned soon, step; /* the second comes less than so many points later, in steps */
};

static void second_ones(const struct pairing *pairing, struct plan *plan)
{
	const struct planned *first = &plan->faults[0];

	for (unsigned fault = 0; fault < fault_count; fault++) {
		if (!is_wanted[fault] ||
		    !pairing->is_second(&fault_menu[first->fault], &fault_menu[fault]))
			continue;
		for (unsigned after = 1; after < pairing->soon; after += pairing->step) {
			plan->faults[1] = (struct planned){fault, first->point + after};
			run(plan);
		}
	}
}

static void paired(const struct pairing *pairing)
{
	static struct course course;
	struct plan plan = {0};

	course_of(&plan, &course);
	plan.count = 2;
	for (unsigned point = 1; point <= course.points; point++) {
		for (unsigned fault = 0; fault < fault_count; fault++) {
			if (!is_wanted[fault] ||
			    !pairing->is_first(&fault_menu[fault], course.kinds[point]))
				continue;
			plan.faults[0] = (struct planned){fault, point};
			second_ones(pairing, &plan);
		}
	}
}

/* A hauld that dies right behind a write, and its machine soon after the next one has read it. */
static void after_writes(void)
{
	paired(&(struct pairing){is_killed_after_write, is_power_of_it, 70, 1});
}

/* Two messages, one soon after the other. */
static void messages(void)
{
	paired(&(struct pairing){is_of_message, is_of_message_too, 30, 1});
}

/* A disk that fails, and soon after the other side is not heard any more, for a while. With a loss
 * of power it may be one too many: docs/safety.md says when. */
static void failing(void)
{
	paired(&(struct pairing){is_failing_disk, is_long_cut, 24, 3});
}

/* The source is left alone with its doubt, or the destination with its copy, and an operator comes
 * before that ends. */
static void operators(void)
{
	paired(&(struct pairing){is_left_alone, is_operator, 24, 3});
}

static unsigned any_fault(void)
{
	for (;;) {
		unsigned fault = (unsigned)(chance() % fault_count);
		if (is_wanted[fault] && is_for_pairs(&fault_menu[fault]))
			return fault;
	}
}

static void sampled_pairs(unsigned count)
{
	static struct course course;
	struct plan plan = {0};

	course_of(&plan, &course);
	plan.count = 2;
	for (unsigned i = 0; i < count; i++) {
		unsigned first = 1 + (unsigned)(chance() % course.points);
		unsigned second = first + (unsigned)(chance() % (course.points - first + MARGIN));
		plan.faults[0] = (struct planned){any_fault(), first};
		plan.faults[1] = (struct planned){any_fault(), second};
		run(&plan);
	}
}

/* --- which --- */

static struct scene {
	const char *word, *title;
	void (*run)(void); /* NULL: the sample of pairs */
	bool is_wanted;
} scenes[] = {
    {"fast", "one fault", fast, false},
    {"slow", "one fault, and CRIU is slow", slow, false},
    {"lazy", "one fault, and memory comes later", lazy, false},
    {"restless", "one fault, and the workload is slowed down", restless, false},
    {"far", "one fault, CRIU is slow and the destination far", far, false},
    {"narrow", "one fault, and the link is narrow", narrow, false},
    {"big", "a journal that is rewritten on the way", big, false},
    {"after-writes", "killed and cut off after a write", after_writes, false},
    {"operators", "left alone, and an operator comes", operators, false},
    {"failing", "a disk fails, then the link", failing, false},
    {"messages", "two messages", messages, false},
    {"pairs", "two faults, a sample", NULL, false},
};

static bool want(const char *word)
{
	bool is_known = false;

	for (size_t i = 0; i < array_len(scenes); i++) {
		if (strcmp(word, scenes[i].word) == 0)
			scenes[i].is_wanted = is_known = true;
	}
	for (unsigned i = 0; i < fault_count; i++) {
		if (strcmp(word, fault_menu[i].name) == 0)
			is_wanted[i] = is_known = true;
	}
	return is_known;
}

static bool has_faults(bool (*is_meant)(const struct fault *fault))
{
	for (unsigned i = 0; i < fault_count; i++) {
		if (is_wanted[i] && (is_meant == NULL || is_meant(&fault_menu[i])))
			return true;
	}
	return false;
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

static void replay(char *spec)
{
	struct plan plan = {0};

	if (!plan_parse(spec, &plan))
		exit(2);
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

static void run_scenes(unsigned pairs)
{
	if (!has_faults(NULL))
		memset(is_wanted, true, sizeof(is_wanted));
	for (size_t i = 0; i < array_len(scenes); i++) {
		unsigned runs = all->runs;
		if (!scenes[i].is_wanted)
			continue;
		if (scenes[i].run != NULL)
			scenes[i].run();
		else if (has_faults(is_for_pairs))
			sampled_pairs(pairs);
		(void)printf("%s: %u runs\n", scenes[i].title, all->runs - runs);
	}
	summary();
}

/* One run, which becomes all of them: faults.c, try_each(). */
static void run_all_pairs(void)
{
	char crashes[] = "kill-a,kill-b,kill-a-gone,kill-b-gone,cut,cut-gone";
	struct plan plan = {.more = 2, .tell = account};
	time_t began = time(NULL); /* clock_gettime() is played */

	if (!has_faults(NULL))
		want_only(crashes);
	for (size_t i = 0; i < array_len(scenes); i++) {
		if (scenes[i].is_wanted)
			(void)plan_set_manner(&plan, scenes[i].word);
	}
	memcpy(plan.is_tried, is_wanted, sizeof(plan.is_tried));
	run(&plan);
	(void)printf("all pairs, in %lld s\n", (long long)(time(NULL) - began));
	summary();
}

static void help(void)
{
	(void)printf("usage: sim [--pairs N] [--seed N] [--first] [--only WORDS]\n"
		     "       sim --all-pairs [--first] [--only WORDS]\n"
		     "       sim --replay SPEC\n"
		     "tests/sim/sim.c says more. Words:");
	for (size_t i = 0; i < array_len(scenes); i++)
		(void)printf(" %s", scenes[i].word);
	(void)printf("; and the faults:");
	for (unsigned i = 0; i < fault_count; i++)
		(void)printf(" %s", fault_menu[i].name);
	(void)printf("\n");
	exit(0);
}

struct choice {
	unsigned pairs;
	char *only;
	bool has_all_pairs;
};

static void choose(int argc, char **argv, struct choice *choice)
{
	static const struct option options[] = {
	    {"pairs", required_argument, NULL, 'p'}, {"seed", required_argument, NULL, 's'},
	    {"all-pairs", no_argument, NULL, 'a'},   {"first", no_argument, NULL, 'f'},
	    {"only", required_argument, NULL, 'o'},  {"replay", required_argument, NULL, 'r'},
	    {"help", no_argument, NULL, 'h'},	     {NULL, 0, NULL, 0}};

	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'p')
			choice->pairs = (unsigned)strtoul(optarg, NULL, 10);
		else if (option == 's')
			all->chance = strtoull(optarg, NULL, 10) * 2 + 1;
		else if (option == 'a')
			choice->has_all_pairs = true;
		else if (option == 'f')
			all->stops_at_first = true;
		else if (option == 'o')
			choice->only = optarg;
		else if (option == 'r')
			replay(optarg);
		else if (option == 'h')
			help();
		else
			exit(2);
	}
}

int main(int argc, char **argv)
{
	char most[] = "fast,slow,lazy,restless,far,narrow,big,after-writes,operators,failing,pairs",
	     none[] = "";
	struct choice choice = {.pairs = getenv("HAUL_FULL") != NULL ? FULL_PAIRS : DEFAULT_PAIRS};

	all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		return 2;
	all->chance = 1;
	choose(argc, argv, &choice);
	if (choice.only == NULL)
		choice.only = choice.has_all_pairs ? none : most;
	want_only(choice.only);
	if (choice.has_all_pairs)
		run_all_pairs();
	else
		run_scenes(choice.pairs);
	return all->failures == 0 ? 0 : 1;
}
