# shellcheck shell=bash
# Rows that docker and podman share: both have the same command line.

# shellcheck disable=SC2034 # lib.sh lists them
common_rows=${BASH_SOURCE[0]}

row_run_hello_world() { want "Hello from a static program" run hello-world; }
row_run_gives_the_exit_status() { ends 7 '' run busybox sh -c 'exit 7'; }
row_run_keeps_stdout_and_stderr_apart() {
    want out sh -c "$engine run --rm busybox sh -c 'echo out; echo err >&2' 2>/dev/null"
    want err sh -c "$engine run --rm busybox sh -c 'echo out; echo err >&2' 2>&1 >/dev/null"
}
row_run_i_reads_stdin() { want 100000 sh -c "yes | head -c 100000 | $engine run --rm -i busybox wc -c"; }
row_run_it_gives_a_terminal() {
    has '^/dev/pts/0$' terminal "$engine" run --rm -it busybox sh -c 'tty; sleep 0.5'
    has '^33 99$' terminal "$engine" run --rm -it busybox sh -c 'sleep 0.5; stty size'
    has '^typed hello$' terminal "$engine" run --rm -it busybox sh -c 'read -r x; echo "typed $x"' <<<hello
}
row_exec() {
    start it
    want /bin/busybox "$engine" exec it ls /bin/busybox
    ends 3 '' "$engine" exec it sh -c 'exit 3'
    want abc sh -c "echo abc | $engine exec -i it cat"
}
row_exec_d() {
    start it
    "$engine" exec -d it sh -c 'echo from the background >/tmp/file'
    eventually "$engine" exec it grep -q 'from the background' /tmp/file
}
row_stop_kills_what_does_not_listen() {
    start it
    "$engine" stop -t 1 it
    want 137 inspect it .State.ExitCode
}
row_restart_policy() {
    "$engine" run -d --name it --restart on-failure:2 busybox sh -c 'exit 3'
    eventually is "2 exited 3" inspect it '.RestartCount}} {{.State.Status}} {{.State.ExitCode'
}
row_shm_size() { want 32768 run --shm-size 32m busybox sh -c "df -k /dev/shm | awk 'END { print \$2 }'"; }
row_pid_of_another_container() {
    start it
    has 'sleep 1000' run --pid container:it busybox ps
}
