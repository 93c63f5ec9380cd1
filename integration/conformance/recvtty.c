/*
 * recvtty for runc's integration tests: it receives the terminals that runtimes send to --console-socket.
 *
 *   recvtty [--mode null] [--pid-file FILE] SOCKET     any number of terminals; their output is thrown away
 *   recvtty [--no-stdin] [--pid-file FILE] SOCKET      one terminal; its output goes to stdout, and stdin goes to it (unless --no-stdin)
 */
#define _GNU_SOURCE
#include <err.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

enum { MOST = 64 };

static int listen_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		errx(1, "%s: too long for a socket", path);
	strcpy(address.sun_path, path);
	if (server < 0 || bind(server, (void *)&address, sizeof(address)) || listen(server, 16))
		err(1, "%s", path);
	return server;
}

/* Receives one message. Returns its descriptor, or -1. */
static int receive(int server)
{
	char payload[4096];
	union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control;
	struct iovec iov = { payload, sizeof(payload) };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
	};
	int connection = accept4(server, NULL, NULL, SOCK_CLOEXEC), terminal = -1;
	struct cmsghdr *header;

	if (connection < 0)
		return -1;
	if (recvmsg(connection, &message, MSG_CMSG_CLOEXEC) > 0) {
		header = CMSG_FIRSTHDR(&message);
		if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
			memcpy(&terminal, CMSG_DATA(header), sizeof(terminal));
	}
	close(connection);
	return terminal;
}

/* Returns true if there may be more to copy. A terminal whose other end is closed answers EIO. */
static int copy(int from, int to)
{
	char data[65536];
	ssize_t length = read(from, data, sizeof(data)), done = 0, n;

	while (to >= 0 && done < length && (n = write(to, data + done, length - done)) > 0)
		done += n;
	return length > 0;
}

static void take_all(const char *path)
{
	struct pollfd fds[MOST] = { { .fd = listen_on(path), .events = POLLIN } };
	nfds_t count = 1, i;

	/* A skipped test may end before it can read the pid file to kill this program. */
	while (poll(fds, count, 1000) >= 0 && access(path, F_OK) == 0) {
		for (i = count - 1; i > 0; i--) {
			if (fds[i].revents && !copy(fds[i].fd, -1)) {
				close(fds[i].fd);
				fds[i] = fds[--count];
			}
		}
		if (fds[0].revents) {
			int terminal = receive(fds[0].fd);

			if (terminal >= 0 && count < MOST)
				fds[count++] = (struct pollfd){ .fd = terminal, .events = POLLIN };
		}
	}
}

static void take_one(const char *path, int with_stdin)
{
	int terminal = receive(listen_on(path));
	struct pollfd fds[2] = {
		{ .fd = terminal, .events = POLLIN }, { .fd = with_stdin ? 0 : -1, .events = POLLIN },
	};
	struct termios modes;

	if (terminal < 0 || tcgetattr(terminal, &modes))
		err(1, "%s: no terminal", path);
	modes.c_oflag &= ~ONLCR;
	tcsetattr(terminal, TCSANOW, &modes);
	while (poll(fds, 2, -1) > 0) {
		if (fds[0].revents && !copy(terminal, 1))
			return;
		if (fds[1].revents && !copy(0, terminal))
			fds[1].fd = -1;
	}
}

int main(int argc, char **argv)
{
	const struct option options[] = {
		{ "mode", required_argument, NULL, 'm' }, { "pid-file", required_argument, NULL, 'p' },
		{ "no-stdin", no_argument, NULL, 'n' }, { 0 },
	};
	int option, all = 0, with_stdin = 1;
	const char *pid_file = NULL;

	while ((option = getopt_long(argc, argv, "m:", options, NULL)) != -1) {
		if (option == 'm')
			all = !strcmp(optarg, "null");
		else if (option == 'p')
			pid_file = optarg;
		else if (option == 'n')
			with_stdin = 0;
		else
			return 2;
	}
	if (optind + 1 != argc)
		errx(2, "one socket is needed");
	if (pid_file) {
		FILE *file = fopen(pid_file, "w");

		if (!file || fprintf(file, "%d\n", getpid()) < 0 || fclose(file))
			err(1, "%s", pid_file);
	}
	if (all)
		take_all(argv[optind]);
	else
		take_one(argv[optind], with_stdin);
	return 0;
}
