// Process 1 of a container that was made with --init: it starts the command,
// hands signals on to it, collects processes that nobody waits for, and ends
// with the command's exit code. It is what tini is to Docker.
//
// It runs before Go's runtime starts, so that it costs a container one thread
// and some pages that all containers share, not a heap and a scheduler.

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// Exit codes of a shell (POSIX, 2.8.2), which are Docker's too.
enum { cannot_execute = 126, not_found = 127, by_signal = 128 };

static void start(char *const argv[], const sigset_t *mask)
{
	// A process group of its own, in front of the terminal if there is one,
	// so that a shell's job control works. Without a terminal this fails.
	setpgid(0, 0);
	signal(SIGTTOU, SIG_IGN);
	tcsetpgrp(STDIN_FILENO, getpgrp());
	signal(SIGTTOU, SIG_DFL);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(argv[0], argv);
	int why = errno;
	fprintf(stderr, "docker-init: exec %s: %s\n", argv[0], strerror(why));
	_exit(why == ENOENT ? not_found : cannot_execute);
}

static int code(int status)
{
	return WIFSIGNALED(status) ? by_signal + WTERMSIG(status) : WEXITSTATUS(status);
}

// reap collects all processes that have ended. It returns the exit code of
// child if that was among them, else -1.
static int reap(pid_t child)
{
	int status, result = -1;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == child)
			result = code(status);
	return result;
}

static int run(char *const argv[])
{
	sigset_t all, mask;
	sigfillset(&all);
	// What a program does wrong ends it; it is not handed on.
	const int own[] = { SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS, SIGTTIN, SIGTTOU };
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		sigdelset(&all, own[i]);
	sigprocmask(SIG_BLOCK, &all, &mask);
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);

	pid_t child = fork();
	if (child < 0) {
		fprintf(stderr, "docker-init: fork: %s\n", strerror(errno));
		return cannot_execute;
	}
	if (child == 0) {
		signal(SIGTTIN, SIG_DFL);
		start(argv, &mask);
	}
	for (;;) {
		int sig = sigwaitinfo(&all, NULL);
		if (sig < 0)
			continue;
		if (sig != SIGCHLD) {
			kill(child, sig);
			continue;
		}
		int result = reap(child);
		if (result >= 0)
			return result;
	}
}

// The C library calls this before main, with main's arguments (glibc does, and
// shale is linked with it).
__attribute__((constructor)) static void container_init(int argc, char **argv)
{
	if (strcmp(program_invocation_short_name, "docker-init") != 0)
		return;
	if (argc < 3 || strcmp(argv[1], "--") != 0) {
		fputs("usage: docker-init -- COMMAND [ARG...]\n", stderr);
		_exit(cannot_execute);
	}
	_exit(run(argv + 2));
}
