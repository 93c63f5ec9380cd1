// Prints what a process sees of its container, one fact a line: `section: fact`. As a hook it writes down what it gets.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void file(const char *section, const char *path) {
    char line[4096];
    FILE *f = fopen(path, "re");
    if (!f) {
        printf("%s: %s: errno %d\n", section, path, errno);
        return;
    }
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        printf("%s: %s\n", section, line);
    }
    fclose(f);
}

static void status(void) {
    static const char *const wanted[] = {"Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:",
        "NoNewPrivs:", "Seccomp:", "Seccomp_filters:", "Umask:", "Cpus_allowed_list:", "Mems_allowed_list:", "SigBlk:", "SigIgn:",
        "SigCgt:", "Speculation_Store_Bypass:", "NSpid:", "Threads:", "CoreDumping:"};
    char line[4096];
    FILE *f = fopen("/proc/self/status", "re");
    if (!f) {
        printf("status: errno %d\n", errno);
        return;
    }
    while (fgets(line, sizeof line, f))
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
            if (!strncmp(line, wanted[i], strlen(wanted[i])))
                printf("status: %s", line);
    fclose(f);
}

static void directory(const char *section, const char *path, int depth) {
    DIR *d = opendir(path);
    if (!d) {
        printf("%s: %s: errno %d\n", section, path, errno);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        char name[4096], target[4096] = "";
        struct stat s;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (lstat(name, &s))
            continue;
        if (S_ISLNK(s.st_mode) && readlink(name, target, sizeof target - 1) < 0)
            target[0] = 0;
        printf("%s: %s %o %u:%u %u:%u %s\n", section, name, s.st_mode, s.st_uid, s.st_gid,
               (unsigned)(s.st_rdev >> 8), (unsigned)(s.st_rdev & 255), target);
        if (S_ISDIR(s.st_mode) && depth)
            directory(section, name, depth - 1);
    }
    closedir(d);
}

static void descriptors(void) {
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("fds: %d\n", fd);
}

static void call(const char *name, long number, long a, long b) {
    fflush(stdout);
    int result, status;
    pid_t child = fork();
    if (child == 0) {
        errno = 0;
        result = syscall(number, a, b, 0, 0, 0, 0) < 0 ? errno : 0;
        syscall(SYS_exit_group, result & 255);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0) {
        printf("calls: %s: fork: errno %d\n", name, errno);
    } else if (WIFSIGNALED(status)) {
        printf("calls: %s(%ld): signal %d\n", name, a, WTERMSIG(status));
    } else {
        printf("calls: %s(%ld): errno %d\n", name, a, WEXITSTATUS(status));
    }
}

static void calls(void) {
    // These calls do no harm with these arguments. Rules of a profile may name them.
    for (long a = 0; a < 4; a++)
        call("getpriority", SYS_getpriority, a, 0);
    call("sync_file_range", SYS_sync_file_range, -1, 0);
    call("swapoff", SYS_swapoff, 0, 0);
    call("mkdirat", SYS_mkdirat, -1, 0);
    call("kcmp", SYS_kcmp, 1, 1);
    call("ioprio_get", SYS_ioprio_get, 1, 0);
    call("sched_yield", SYS_sched_yield, 0, 0);
    call("newest", 9999, 0, 0);
}

static void devices(void) {
    // Does the device cgroup allow to make a node and to open it? The node is removed at once.
    static const struct { int type, major, minor; } rows[] = {
        {S_IFCHR, 1, 3}, {S_IFCHR, 1, 1}, {S_IFCHR, 10, 229}, {S_IFCHR, 10, 200}, {S_IFBLK, 7, 0}, {S_IFBLK, 254, 0}, {S_IFCHR, 5, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *path = "/tmp/probe-node";
        dev_t device = makedev(rows[i].major, rows[i].minor);
        int made = mknod(path, rows[i].type | 0600, device) ? errno : 0;
        if (made == EACCES) { // /tmp belongs to another user.
            path = "/dev/probe-node";
            made = mknod(path, rows[i].type | 0600, device) ? errno : 0;
        }
        int reads = 0, writes = 0, fd = -1;
        if (!made) {
            // Errors like ENXIO come from the driver: the cgroup has allowed the access.
            reads = (fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)) < 0 && (errno == EPERM || errno == EACCES) ? errno : 0;
            if (fd >= 0)
                close(fd);
            writes = (fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY)) < 0 && (errno == EPERM || errno == EACCES) ? errno : 0;
            if (fd >= 0)
                close(fd);
            unlink(path);
        }
        printf("devices: %c %d:%d mknod %d read %d write %d\n", rows[i].type == S_IFCHR ? 'c' : 'b', rows[i].major, rows[i].minor, made, reads, writes);
    }
}

static void limits(void) {
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        struct rlimit r;
        if (!getrlimit(i, &r))
            printf("rlimits: %d %lld %lld\n", i, (long long)r.rlim_cur, (long long)r.rlim_max);
    }
}

static void namespaces(void) {
    static const char *const names[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts", "time"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64], target[64] = "";
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        if (readlink(path, target, sizeof target - 1) < 0)
            snprintf(target, sizeof target, "errno %d", errno);
        printf("ns: %s %s\n", names[i], target);
    }
}

static int hook(int argc, char **argv) {
    char text[65536];
    int fd = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    ssize_t length = 0, got;
    while ((got = read(0, text + length, sizeof text - 1 - (size_t)length)) > 0)
        length += got;
    text[length] = 0;
    dprintf(fd, "hook %s argc %d stdin %s\n", argv[1], argc, text);
    for (char **e = environ; *e; e++)
        dprintf(fd, "hook %s env %s\n", argv[1], *e);
    if (getcwd(text, sizeof text))
        dprintf(fd, "hook %s cwd %s\n", argv[1], text);
    return argc > 3 ? atoi(argv[3]) : 0;
}

int main(int argc, char **argv) {
    if (argc > 2 && !strncmp(argv[1], "hook", 4))
        return hook(argc, argv);
    char text[4096];
    static const char *const kernel[] = {"net/core/somaxconn", "net/ipv4/ip_forward", "net/ipv4/ping_group_range", "kernel/shm_rmid_forced", "kernel/msgmax",
        "kernel/domainname", "fs/mqueue/msg_max", "kernel/sem"};
    static const char *const paths[] = {"/", "/proc/sys", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys", "/sys/firmware", "/dev",
        "/dev/shm", "/tmp", "/data", "/data/below", "/new/deep/place", "/file", "/proc/sysrq-trigger", "/sys/fs/cgroup"};
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    for (int i = 0; i < argc; i++)
        printf("args: %s\n", argv[i]);
    for (char **e = environ; *e; e++)
        printf("env: %s\n", *e);
    printf("cwd: %s\n", getcwd(text, sizeof text) ? text : strerror(errno));
    struct utsname name;
    uname(&name);
    printf("uts: %s %s\n", name.nodename, name.domainname);
    status();
    limits();
    namespaces();
    descriptors();
    printf("ids: pid %d ppid %d sid %d pgid %d\n", getpid(), getppid(), getsid(0), getpgid(0));
    printf("scheduling: policy %d nice %d ioprio %ld personality %x\n", sched_getscheduler(0), getpriority(PRIO_PROCESS, 0),
           syscall(SYS_ioprio_get, 1, 0), (unsigned)personality(0xffffffff));
    printf("prctl: dumpable %d keepcaps %d securebits %d pdeathsig-subreaper %d\n", prctl(PR_GET_DUMPABLE), prctl(PR_GET_KEEPCAPS),
           prctl(PR_GET_SECUREBITS), prctl(PR_GET_CHILD_SUBREAPER, &argc) ? -1 : argc > 1000);
    file("oom", "/proc/self/oom_score_adj");
    file("maps", "/proc/self/uid_map");
    file("maps", "/proc/self/gid_map");
    file("maps", "/proc/self/setgroups");
    file("timens", "/proc/self/timens_offsets");
    file("cgroup", "/proc/self/cgroup");
    file("mounts", "/proc/self/mountinfo");
    for (size_t i = 0; i < sizeof kernel / sizeof *kernel; i++) {
        char section[64];
        snprintf(section, sizeof section, "sysctl: %s", kernel[i]);
        snprintf(text, sizeof text, "/proc/sys/%s", kernel[i]);
        file(section, text);
    }
    directory("dev", "/dev", 1);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct stat s;
        if (stat(paths[i], &s))
            printf("paths: %s errno %d\n", paths[i], errno);
        else
            printf("paths: %s mode %o %u:%u writable %d\n", paths[i], s.st_mode, s.st_uid, s.st_gid, access(paths[i], W_OK) ? errno : 0);
    }
    devices();
    calls();
    return 7;
}
