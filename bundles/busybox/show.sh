#!/bin/sh
# Prints what a container sees of itself.
echo "pid 1      $(tr '\0' ' ' < /proc/1/cmdline)"
echo "hostname   $(hostname)"
echo "user       $(id)"
echo "caps       $(grep CapEff /proc/self/status | cut -f 2)"
echo "processes  $(ls -d /proc/[0-9]* | wc -l)"
echo "interfaces $(ls /sys/class/net | tr '\n' ' ')"
echo "open files $(ulimit -n)"
touch /here 2>/dev/null && echo "rootfs     writable" || echo "rootfs     read-only"
echo "limits"
cd /sys/fs/cgroup || exit
# cgroup v2 has all files in one directory, v1 has one directory for each controller.
for file in memory.max pids.max cpu.max \
    memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; do
    [ -r "$file" ] && echo "           $file = $(cat "$file")"
done
echo "mounts"
cut -d ' ' -f 1-4 /proc/mounts | sed 's/^/           /'
