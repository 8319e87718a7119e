#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
# Init of the guest: it mounts, loads modules, and answers requests on the virtio serial port "memhp".
#
# A request is one line: NUMBER VERB ARGUMENT ARGUMENT, between tabs. An answer is a line "NUMBER STATUS LENGTH TEXT" and LENGTH
# bytes. STATUS is 0, or not 0 and TEXT says why in the words of strerror(). See guest.py for the other end.

bb=/bin/busybox
say() { echo "memhp: $*" >/dev/console; }

$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb mount -t tmpfs tmpfs /run
$bb mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
$bb mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
$bb --install -s /bin
export PATH=/bin
cd /run

while read -r module; do
    insmod "/modules/$module.ko" 2>/run/error || say "insmod $module: $(cat /run/error)"
done </modules/order

# The port appears when its driver has talked to the device.
port=
tries=0
while [ -z "$port" ] && [ $tries -lt 60 ]; do
    for dir in /sys/class/virtio-ports/*; do
        [ -e "$dir/name" ] && read -r name <"$dir/name" && [ "$name" = memhp ] && port=/dev/${dir##*/}
    done
    [ -n "$port" ] || usleep 50000
    tries=$((tries + 1))
done
if [ -z "$port" ]; then
    say "no virtio port: this kernel needs virtio_pci and virtio_console, built in or as modules"
    while :; do sleep 1000; done
fi

for word in $(cat /proc/cmdline); do
    [ "$word" = memhp.shell ] && (while :; do setsid cttyhack sh; done) </dev/console >/dev/console 2>&1 &
done

# Guests that others are to work with have the QEMU guest agent, too.
if [ -x /lib/qemu-ga ]; then
    blocked=
    for word in $(cat /proc/cmdline); do
        case $word in memhp.block=*) blocked="-b ${word#*=}" ;; esac
    done
    for dir in /sys/class/virtio-ports/*; do
        read -r name <"$dir/name" && [ "$name" = org.qemu.guest_agent.0 ] &&
            LD_LIBRARY_PATH=/lib /lib/qemu-ga -d -m virtio-serial -p "/dev/${dir##*/}" -t /run -f /run/qemu-ga.pid $blocked
    done
fi

tab=$(printf '\t')
line='
'
trap : USR1

# why: the last words of the error in /run/error; only its text comes from strerror().
why() {
    text=
    while IFS= read -r last; do text=${last##*: }; done </run/error
}

# send STATUS TEXT: an answer without bytes.
send() { echo "$number $1 0 $2"; }

# send_file: /run/answer and what it holds.
send_file() {
    echo "$number 0 $(stat -c %s /run/answer) "
    cat /run/answer
}

# read PATH: small files of sysfs without a process of their own.
do_read() {
    case $1 in
    /sys/devices/*)
        if [ -f "$1" ] && [ -r "$1" ]; then
            content=
            part=
            while IFS= read -r part; do content="$content$part$line"; done <"$1" 2>/dev/null
            content=$content$part
            if [ -n "$content" ]; then
                echo "$number 0 ${#content} "
                printf %s "$content"
                return
            fi
        fi
        ;;
    esac
    if [ -d "$1" ]; then
        send 1 "Is a directory"
    elif cat "$1" >/run/answer 2>/run/error; then
        send_file
    else
        why
        send 1 "$text"
    fi
}

# piece PATH OFFSET SIZE
do_piece() {
    if [ -d "$1" ]; then
        send 1 "Is a directory"
    elif dd if="$1" of=/run/answer bs=65536 iflag=skip_bytes,count_bytes skip="$2" count="$3" 2>/run/error; then
        send_file
    else
        sed -i '/records/d' /run/error
        why
        send 1 "$text"
    fi
}

# list PATH
do_list() {
    if [ -d "$1" ]; then
        names=
        for entry in "$1"/* "$1"/.*; do
            [ -e "$entry" ] || [ -L "$entry" ] || continue
            names="$names${entry##*/}$line"
        done
        echo "$number 0 ${#names} "
        printf %s "$names"
    elif [ -e "$1" ]; then
        send 1 "Not a directory"
    else
        ls "$1" >/dev/null 2>/run/error
        why
        send 1 "$text"
    fi
}

# write PATH TEXT SECONDS: one write(2) by a process of its own, which may die or hang.
do_write() {
    if [ ! -e "$1" ]; then
        ls "$1" >/dev/null 2>/run/error
        why
        send 1 "$text"
        return
    elif [ -d "$1" ]; then
        send 1 "Is a directory"
        return
    fi
    printf %b "$2" >/run/text
    dd if=/run/text of="$1" bs=1048576 conv=notrunc 2>/run/error &
    writer=$!
    (
        trap 'kill $sleeper 2>/dev/null; exit' TERM
        sleep "$3" &
        sleeper=$!
        wait $sleeper && kill -USR1 1
    ) &
    watch=$!
    wait $writer
    status=$?
    if [ $status -gt 128 ] && kill -0 $writer 2>/dev/null; then
        send hang "$(cat /proc/$writer/wchan 2>/dev/null)"
        return
    fi
    kill $watch 2>/dev/null
    wait $watch 2>/dev/null
    if [ $status -gt 128 ]; then
        send died "$((status - 128))"
    elif [ $status -eq 0 ]; then
        send 0 ""
    else
        sed -i '/records/d' /run/error
        why
        send 1 "$text"
    fi
}

# run SCRIPT: a shell script; its output and error output are the bytes.
do_run() {
    printf %b "$1" >/run/script
    sh /run/script >/run/answer 2>&1
    status=$?
    echo "$number $status $(stat -c %s /run/answer) "
    cat /run/answer
}

serve() {
    echo "0 0 0 ready"
    while IFS="$tab" read -r number verb one two three; do
        case $verb in
        read) do_read "$one" ;;
        piece) do_piece "$one" "$two" "$three" ;;
        list) do_list "$one" ;;
        write) do_write "$one" "$two" "$three" ;;
        run) do_run "$one" ;;
        *) send 1 "Function not implemented" ;;
        esac
    done
}

while :; do
    serve <>$port >&0
    sleep 1
done
