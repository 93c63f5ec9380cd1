/*
 * The floor: the system calls that the benchmark's two bundles need, and nothing else.
 *
 * It reads no JSON, checks nothing, looks up no id, reads nothing back, and resists no attacker: this is no runtime. It is the
 * yardstick: the time that the kernel itself takes for this work.
 *
 *   floor [--v1|--v2|--hybrid] [--docker] [--userns] VERB ID BUNDLE [ARG...]
 *   verbs: run create start exec state kill delete (delete kills a running container)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define STATE "/run/orlop-bench/floor"
#define LEN(a) (sizeof(a) / sizeof *(a))

static int v1, v2, docker, userns;
static const char *id, *bundle;
static char **command;
static const char *const hierarchies[] = { "cpu", "cpuacct", "cpuset", "memory", "devices",
					   "freezer", "blkio", "pids", "systemd" };

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static long must(long result, const char *what)
{
	if (result < 0)
		die(what);
	return result;
}

static char *format(const char *format, const char *a, const char *b)
{
	static char room[16][512];
	static unsigned next;
	char *text = room[next++ % LEN(room)];
	snprintf(text, sizeof room[0], format, a, b);
	return text;
}

static void put(const char *path, const char *text)
{
	int fd = must(open(path, O_WRONLY | O_CLOEXEC), path);
	must(write(fd, text, strlen(text)), path);
	close(fd);
}

/* --- the cgroup --- */

static char *unified(void)
{
	return format(v2 && !v1 ? "/sys/fs/cgroup/%s" : "/sys/fs/cgroup/unified/%s", id, "");
}

/* "Deny all except the default devices": written to v1 lists, or loaded as a program. */
static const char *const devices[] = { "b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
				       "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 10:200 rwm", "c 136:* rwm" };

static void device_program(int cgroup)
{
	/* r0 = 1; exit: the least that the kernel takes to load and attach a program. */
	struct { unsigned char code, regs; short off; int imm; } program[] = { { 0xb7, 0, 0, 1 }, { 0x95, 0, 0, 0 } };
	union {
		struct { unsigned type, count; unsigned long insns, license; unsigned level, size; unsigned long log;
			 unsigned version, flags; } load;
		struct { unsigned target, program, type, flags; } attach;
		char room[144];
	} attr = { 0 };
	attr.load.type = 15;
	attr.load.count = LEN(program);
	attr.load.insns = (unsigned long)program;
	attr.load.license = (unsigned long)"GPL";
	int fd = must(syscall(SYS_bpf, 5, &attr, sizeof attr), "BPF_PROG_LOAD");
	memset(&attr, 0, sizeof attr);
	attr.attach.target = cgroup;
	attr.attach.program = fd;
	attr.attach.type = 6;
	attr.attach.flags = 2;
	must(syscall(SYS_bpf, 8, &attr, sizeof attr), "BPF_PROG_ATTACH");
}

static int tasks[LEN(hierarchies)], cgroup = -1;

static void open_cgroups(void)
{
	for (unsigned i = 0; v1 && i < LEN(hierarchies); i++)
		tasks[i] = must(open(format("/sys/fs/cgroup/%s/%s/tasks", hierarchies[i], id), O_WRONLY | O_CLOEXEC), "tasks");
	if (v2)
		cgroup = must(open(unified(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "cgroup");
}

static void make_cgroups(void)
{
	for (unsigned i = 0; v1 && i < LEN(hierarchies); i++)
		must(mkdir(format("/sys/fs/cgroup/%s/%s", hierarchies[i], id), 0755), "mkdir cgroup");
	if (v2)
		must(mkdir(unified(), 0755), "mkdir cgroup");
	open_cgroups();
	if (v1) {
		put(format("/sys/fs/cgroup/cpuset/%s/cpuset.cpus", id, ""), "0-1");
		put(format("/sys/fs/cgroup/cpuset/%s/cpuset.mems", id, ""), "0");
		put(format("/sys/fs/cgroup/devices/%s/devices.deny", id, ""), "a");
		int fd = must(open(format("/sys/fs/cgroup/devices/%s/devices.allow", id, ""), O_WRONLY | O_CLOEXEC), "allow");
		for (unsigned i = 0; i < LEN(devices); i++)
			must(write(fd, devices[i], strlen(devices[i])), devices[i]);
		close(fd);
	} else {
		device_program(cgroup);
	}
}

static void remove_cgroups(void)
{
	for (unsigned i = 0; v1 && i < LEN(hierarchies); i++)
		must(rmdir(format("/sys/fs/cgroup/%s/%s", hierarchies[i], id)), "rmdir cgroup");
	if (v2)
		must(rmdir(unified()), "rmdir cgroup");
}

static void enter_cgroups(void)
{
	for (unsigned i = 0; v1 && i < LEN(hierarchies); i++)
		must(write(tasks[i], "0", 1), "tasks");
}

/* --- in the container's process --- */

static void new(const char *type, const char *at, unsigned long flags, const char *data)
{
	must(mount(type, at, type, flags, data), at);
}

static void bind_at(const char *from, const char *to, unsigned long flags)
{
	must(mount(from, to, NULL, MS_BIND | MS_REC, NULL), to);
	if (flags)
		must(mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | flags, NULL), to);
}

static void cgroup_mount(void)
{
	const unsigned long flags = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	if (!v1) {
		bind_at(unified(), "sys/fs/cgroup", MS_RDONLY | flags);
		return;
	}
	new("tmpfs", "sys/fs/cgroup", flags, "mode=755");
	for (unsigned i = 0; i < LEN(hierarchies); i++) {
		char *to = format("sys/fs/cgroup/%s", hierarchies[i], "");
		mkdir(to, 0755);
		bind_at(format("/sys/fs/cgroup/%s/%s", hierarchies[i], id), to, MS_RDONLY | flags);
	}
	must(mount(NULL, "sys/fs/cgroup", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | flags, NULL), "cgroup ro");
}

static void make_devices(void)
{
	static const struct { const char *name; int major, minor; } nodes[] = {
		{ "dev/null", 1, 3 }, { "dev/zero", 1, 5 }, { "dev/full", 1, 7 },
		{ "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 } };
	for (unsigned i = 0; i < LEN(nodes); i++) {
		if (!userns) {
			must(mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].name);
			continue;
		}
		close(must(open(nodes[i].name, O_CREAT | O_CLOEXEC, 0666), nodes[i].name));
		bind_at(format("/%s", nodes[i].name, ""), nodes[i].name, 0);
	}
	symlink("/proc/self/fd", "dev/fd");
	symlink("/proc/self/fd/0", "dev/stdin");
	symlink("/proc/self/fd/1", "dev/stdout");
	symlink("/proc/self/fd/2", "dev/stderr");
	symlink("/proc/kcore", "dev/core");
	symlink("pts/ptmx", "dev/ptmx");
}

static void restrict_paths(void)
{
	static const char *const readonly[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
	static const char *const masked[] = { "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
					      "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi" };
	for (unsigned i = 0; i < LEN(readonly); i++)
		if (!mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL))
			must(mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), readonly[i]);
	for (unsigned i = 0; i < LEN(masked); i++) {
		struct stat found;
		if (lstat(masked[i], &found))
			continue;
		if (S_ISDIR(found.st_mode))
			new("tmpfs", masked[i], MS_RDONLY, NULL);
		else
			bind_at("/dev/null", masked[i], 0);
	}
}

static void mounts(void)
{
	const unsigned long flags = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	new("proc", "proc", docker ? flags : 0, NULL);
	new("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	mkdir("dev/pts", 0755);
	new("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	mkdir("dev/shm", 0755);
	new("tmpfs", "dev/shm", flags, "mode=1777,size=65536k");
	mkdir("dev/mqueue", 0755);
	new("mqueue", "dev/mqueue", flags, NULL);
	new("sysfs", "sys", flags | MS_RDONLY, NULL);
	cgroup_mount();
	for (int i = 0; docker && i < 10; i++) {
		char name[2] = { '0' + i };
		bind_at(format("%s/volumes/%s", bundle, name), format("volumes/%s", name, ""), i % 2 ? MS_RDONLY : 0);
	}
}

static void identity(void)
{
	static const int kept[] = { CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE };
	unsigned keep = 0;
	for (unsigned i = 0; i < LEN(kept); i++)
		keep |= 1u << kept[i];
	if (docker)
		keep = 0xa80425fb;
	struct rlimit files = { 1024, 1024 };
	must(setrlimit(RLIMIT_NOFILE, &files), "rlimit");
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (cap > 31 || !(keep & 1u << cap))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { keep, keep, 0 } };
	must(syscall(SYS_capset, &head, data), "capset");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

static struct sock_fprog filter;

static void read_filter(void)
{
	static struct sock_filter rows[4096];
	int fd = must(open(format("%s/filter.bpf", bundle, ""), O_RDONLY | O_CLOEXEC), "filter.bpf");
	filter.len = must(read(fd, rows, sizeof rows), "filter.bpf") / sizeof rows[0];
	filter.filter = rows;
	close(fd);
}

static void load_filter(void)
{
	if (docker)
		must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), "seccomp");
}

static void child(int wire, int fifo_dir)
{
	char go;
	enter_cgroups();
	if (userns) {
		must(write(wire, "m", 1), "wire");
		must(read(wire, &go, 1), "wire");
		must(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
		must(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
	}
	setsid();
	syscall(SYS_keyctl, 1, id);
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = must(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	must(ioctl(fd, SIOCSIFFLAGS, &lo), "lo");
	close(fd);
	must(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "slave");
	char *rootfs = format("%s/rootfs", bundle, "");
	must(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL), "rootfs");
	must(chdir(rootfs), "chdir");
	mounts();
	make_devices();
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount");
	must(chdir("/"), "chdir");
	must(mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), "ro root");
	must(sethostname("orlop", 5), "sethostname");
	restrict_paths();
	identity();
	must(write(wire, "r", 1), "wire");
	if (fifo_dir >= 0) {
		fd = must(openat(fifo_dir, "fifo", O_WRONLY | O_CLOEXEC), "fifo");
		must(write(fd, "0", 1), "fifo");
	} else {
		must(read(wire, &go, 1), "wire");
	}
	load_filter();
	char *const env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL };
	execve(command[0], command, env);
	die(command[0]);
}

/* --- the runtime's side --- */

static pid_t born(unsigned long flags, int *pidfd)
{
	struct clone_args args = { .flags = flags | CLONE_PIDFD | (v2 ? CLONE_INTO_CGROUP : 0), .pidfd = (unsigned long)pidfd,
				   .exit_signal = SIGCHLD, .cgroup = cgroup };
	return must(syscall(SYS_clone3, &args, sizeof args), "clone3");
}

static void write_state(pid_t pid)
{
	char text[32];
	int fd = must(open(format(STATE "/%s/state.tmp", id, ""), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), "state");
	must(write(fd, text, snprintf(text, sizeof text, "%d\n", pid)), "state");
	close(fd);
	must(rename(format(STATE "/%s/state.tmp", id, ""), format(STATE "/%s/state", id, "")), "state");
}

static pid_t read_state(void)
{
	char text[32] = "";
	int fd = must(open(format(STATE "/%s/state", id, ""), O_RDONLY | O_CLOEXEC), "state");
	must(read(fd, text, sizeof text - 1), "state");
	close(fd);
	return atoi(text);
}

static int create(int waits)
{
	unsigned long flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	int wire[2], pidfd, fifo_dir = -1;
	char said;
	if (docker)
		read_filter();
	must(mkdir(format(STATE "/%s", id, ""), 0711), "mkdir state");
	write_state(0);
	make_cgroups();
	if (waits) {
		char *fifo = format(STATE "/%s/fifo", id, "");
		must(mkfifo(fifo, 0600), "fifo");
		if (userns)
			must(chown(fifo, 100000, 100000), "chown");
		fifo_dir = must(open(format(STATE "/%s", id, ""), O_PATH | O_CLOEXEC), "state");
	}
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, wire), "socketpair");
	pid_t pid = born(flags | (userns ? CLONE_NEWUSER : 0), &pidfd);
	if (!pid)
		child(wire[1], fifo_dir);
	close(wire[1]);
	for (said = 0; read(wire[0], &said, 1) == 1;) {
		if (said == 'm') {
			char number[16];
			snprintf(number, sizeof number, "%d", pid);
			put(format("/proc/%s/uid_map", number, ""), "0 100000 65536");
			put(format("/proc/%s/gid_map", number, ""), "0 100000 65536");
		} else {
			write_state(pid);
			if (waits)
				return 0;
		}
		must(write(wire[0], "g", 1), "wire");
	}
	return said == 'r' ? pidfd : -1;
}

static int ended(int pidfd)
{
	siginfo_t info;
	must(waitid(P_PIDFD, pidfd, &info, WEXITED), "waitid");
	return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

static void forget(void)
{
	remove_cgroups();
	unlink(format(STATE "/%s/state", id, ""));
	must(rmdir(format(STATE "/%s", id, "")), "rmdir state");
}

static int execute(void)
{
	int container = must(syscall(SYS_pidfd_open, read_state(), 0), "pidfd_open"), pidfd;
	if (docker)
		read_filter();
	open_cgroups();
	/* Joining a pid namespace affects only children: the joining process makes the one that runs. */
	if (!born(0, &pidfd)) {
		enter_cgroups();
		must(syscall(SYS_setns, container,
			     CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | (userns ? CLONE_NEWUSER : 0)), "setns");
		pid_t pid = must(vfork(), "vfork");
		if (!pid) {
			if (userns) {
				must(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
				must(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
			}
			setsid();
			identity();
			load_filter();
			char *const env[] = { "PATH=/bin", NULL };
			execve(command[0], command, env);
			die(command[0]);
		}
		int status;
		must(waitpid(pid, &status, 0), "waitpid");
		_exit(WEXITSTATUS(status));
	}
	return ended(pidfd);
}

static int start(void)
{
	char said;
	int fd = must(open(format(STATE "/%s/fifo", id, ""), O_RDONLY | O_CLOEXEC), "fifo");
	must(read(fd, &said, 1), "fifo");
	must(read(fd, &said, 1), "fifo"); /* EOF: execve has closed the other end */
	return unlink(format(STATE "/%s/fifo", id, ""));
}

static int kill_it(int signal, int wait)
{
	int pidfd = syscall(SYS_pidfd_open, read_state(), 0);
	if (pidfd >= 0 && !syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) && wait) {
		struct pollfd end = { pidfd, POLLIN, 0 };
		poll(&end, 1, -1);
	}
	return 0;
}

int main(int argc, char **argv)
{
	char **arg = argv + 1;
	for (; *arg && !strncmp(*arg, "--", 2); arg++) {
		v1 |= !strcmp(*arg, "--v1") || !strcmp(*arg, "--hybrid");
		v2 |= !strcmp(*arg, "--v2") || !strcmp(*arg, "--hybrid");
		docker |= !strcmp(*arg, "--docker");
		userns |= !strcmp(*arg, "--userns");
	}
	if (argc - (arg - argv) < 3 || !(v1 | v2)) {
		fputs("usage: see the head of floor.c\n", stderr);
		return 2;
	}
	const char *verb = arg[0];
	static char *true_command[] = { "/bin/true", NULL };
	id = arg[1];
	bundle = arg[2];
	command = arg[3] ? arg + 3 : true_command;
	if (!strcmp(verb, "run")) {
		int pidfd = create(0), code = pidfd < 0 ? 1 : ended(pidfd);
		forget();
		return code;
	}
	if (!strcmp(verb, "create"))
		return create(1);
	if (!strcmp(verb, "start"))
		return start();
	if (!strcmp(verb, "exec"))
		return execute();
	if (!strcmp(verb, "state"))
		return printf("%d\n", read_state()) < 0;
	if (!strcmp(verb, "kill"))
		return kill_it(SIGKILL, 0);
	if (!strcmp(verb, "delete")) {
		kill_it(SIGKILL, 1);
		unlink(format(STATE "/%s/fifo", id, ""));
		forget();
		return 0;
	}
	return 2;
}
