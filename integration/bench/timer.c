/*
 * Times commands in turn, so that other work on the machine disturbs all of them alike.
 *
 *   timer ROUNDS SECONDS GAP_MS < SCRIPT
 *
 * A script has a section for each peer, and in it the steps of one round:
 *
 *   peer NAME
 *   setup COMMAND...     once, before the first round
 *   before COMMAND...    each round, not timed
 *   gone FILE            each round, not timed: waits until the process whose id is in FILE has ended
 *   time COMMAND...      each round, timed: from before the spawn to after the wait
 *   after COMMAND...     each round, not timed
 *   teardown COMMAND...  once, after the last round; may fail
 *
 * In arguments, % stands for the round's number. Before each peer's timed steps the program sleeps GAP_MS. It prints a line
 * `NAME NANOSECONDS CPU_MICROSECONDS PEAK_KIB` for each round and peer. The first round warms up and is not printed. The program
 * ends after ROUNDS or SECONDS. If a command fails it ends at once with status 1, and prints the command on stderr.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum kind { SETUP, BEFORE, GONE, TIME, AFTER, TEARDOWN };
static const char *const kinds[] = { "setup", "before", "gone", "time", "after", "teardown" };

struct step {
	enum kind kind;
	char *words[64];
};

static struct peer {
	char *name;
	unsigned count;
	struct step steps[16];
} peers[16];
static unsigned count;
static posix_spawn_file_actions_t actions;

static long long now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void pause_ms(int ms)
{
	struct timespec gap = { ms / 1000, ms % 1000 * 1000000L };
	nanosleep(&gap, NULL);
}

static void parse(void)
{
	static char line[65536];
	struct peer *peer = NULL;
	while (fgets(line, sizeof line, stdin)) {
		char *word = strtok(line, " \n");
		if (!word)
			continue;
		if (!strcmp(word, "peer")) {
			peer = &peers[count++];
			peer->name = strdup(strtok(NULL, " \n"));
			continue;
		}
		struct step *step = &peer->steps[peer->count++];
		for (step->kind = SETUP; strcmp(kinds[step->kind], word); step->kind++)
			if (step->kind == TEARDOWN)
				exit(2);
		for (unsigned i = 0; (word = strtok(NULL, " \n")) && i < 63; i++)
			step->words[i] = strdup(word);
	}
}

/* The word, with the round's number in place of %. */
static char *filled(char *word, unsigned round)
{
	static char room[64][512];
	static unsigned next;
	char *mark = strchr(word, '%'), *text = room[next++ % 64];
	if (!mark)
		return word;
	snprintf(text, sizeof room[0], "%.*s%u%s", (int)(mark - word), word, round, mark + 1);
	return text;
}

static void wait_for(char *file, unsigned round)
{
	int pid = 0;
	FILE *said = fopen(filled(file, round), "r");
	if (!said || fscanf(said, "%d", &pid) != 1) {
		fprintf(stderr, "timer: %s: no process id\n", file);
		exit(1);
	}
	fclose(said);
	/* The process that started it has ended, so the kernel gave it to this program, as it would to an engine. Process 1 might
	 * reap it late. */
	while (!kill(pid, 0) && waitpid(pid, NULL, WNOHANG) != pid)
		pause_ms(1);
}

/* Runs a command and returns how long it took. Raises the peak, and adds the CPU time of the command and of the children that it
 * reaped. */
static long long run(const struct peer *peer, const struct step *step, unsigned round, long *peak, long *cpu)
{
	char *argv[64] = { NULL };
	for (unsigned i = 0; step->words[i]; i++)
		argv[i] = filled(step->words[i], round);
	struct rusage usage;
	int status;
	pid_t pid;
	long long begin = now();
	int error = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
	if (error || wait4(pid, &status, 0, &usage) < 0) {
		fprintf(stderr, "timer: %s: %s\n", argv[0], strerror(error));
		exit(1);
	}
	long long took = now() - begin;
	if (status && step->kind != TEARDOWN) {
		fprintf(stderr, "timer: %s:", peer->name);
		for (unsigned i = 0; argv[i]; i++)
			fprintf(stderr, " %s", argv[i]);
		fprintf(stderr, ": status %#x\n", status);
		exit(1);
	}
	if (usage.ru_maxrss > *peak)
		*peak = usage.ru_maxrss;
	*cpu += (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000L + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
	return took;
}

static void once(enum kind kind)
{
	long peak = 0, cpu = 0;
	for (unsigned p = 0; p < count; p++)
		for (unsigned s = 0; s < peers[p].count; s++)
			if (peers[p].steps[s].kind == kind)
				run(&peers[p], &peers[p].steps[s], 0, &peak, &cpu);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	unsigned rounds = atoi(argv[1]);
	long long end = now() + atoll(argv[2]) * 1000000000LL;
	int gap = atoi(argv[3]);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	parse();
	once(SETUP);
	for (unsigned round = 0; round <= rounds && (round < 4 || now() < end); round++) {
		for (unsigned turn = 0; turn < count; turn++) {
			/* Another peer goes first each time, so that no peer always runs after the same one. */
			const struct peer *peer = &peers[(turn + round) % count];
			long long took = 0;
			long peak = 0, cpu = 0, ignored = 0;
			int slept = 0;
			for (unsigned s = 0; s < peer->count; s++) {
				const struct step *step = &peer->steps[s];
				if (step->kind == GONE)
					wait_for(step->words[0], round);
				if (step->kind == BEFORE || step->kind == AFTER)
					run(peer, step, round, &ignored, &ignored);
				if (step->kind == TIME) {
					if (gap && !slept++)
						pause_ms(gap);
					took += run(peer, step, round, &peak, &cpu);
				}
			}
			if (round)
				printf("%s %lld %ld %ld\n", peer->name, took, cpu, peak);
		}
	}
	once(TEARDOWN);
	return 0;
}
