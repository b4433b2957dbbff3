#!/bin/sh
# enter.sh FOLDER NETWORK QEMU COMMAND...: run COMMAND where programs of ARM run like any other, with FOLDER/root as its
# root, by the emulators in the folder QEMU.
# It is to begin in namespaces of its own, so that what is mounted here is nobody else's, and goes with the last process. FOLDER/lower
# names what the root is made of; FOLDER/shown holds lines `SOURCE TARGET` of folders shown in it, as copies on write, and
# FOLDER/kept of those where what is written stays.
set -eu
folder=$1 network=$2 qemu=$3
shift 3
binfmt=/proc/sys/fs/binfmt_misc registered=
mount -t binfmt_misc binfmt_misc "$binfmt"
# register NAME HEAD INTERPRETER: F opens the interpreter now, so that it need not lie in the root; P keeps argv[0]
register() {
    # where these are the machine's, another may have registered them
    if [ -e "$binfmt/taskengine-$1" ]; then return; fi
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":taskengine-$1:M:0:\\x7fELF$2:$mask:$qemu/$1:PF" >"$binfmt/register"
    registered="$registered taskengine-$1"
}
register qemu-aarch64 '\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
register qemu-arm '\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00'
trap 'for name in $registered; do echo -1 >"$binfmt/$name"; done' EXIT
if [ "$network" = no ]; then ip link set lo up; fi
if [ ! -e "$folder/lower" ]; then
    "$@"
    exit
fi
lower=$(cat "$folder/lower") root=$folder/root
mount -t tmpfs tmpfs "$root"
mkdir "$root/new"
layer() {
    mkdir -p "$root/layers/$2/upper" "$root/layers/$2/work"
    mount -t overlay overlay "$3" \
        -o "userxattr,lowerdir=$1,upperdir=$root/layers/$2/upper,workdir=$root/layers/$2/work"
}
layer "$lower" root "$root/new"
new=$root/new number=0
while read -r source target; do
    mkdir -p "$new$target"
    number=$((number + 1))
    layer "$source" "$number" "$new$target"
done <"$folder/shown"
while read -r source target; do
    mkdir -p "$new$target"
    mount --bind "$source" "$new$target"
done <"$folder/kept"
mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys" || mount --rbind /sys "$new/sys"
mount -t tmpfs tmpfs "$new/dev" -o mode=755
for device in null zero full random urandom tty; do
    touch "$new/dev/$device"
    mount --bind "/dev/$device" "$new/dev/$device"
done
mkdir "$new/dev/shm" "$new/dev/pts"
mount -t tmpfs tmpfs "$new/dev/shm" -o mode=1777
mount -t devpts devpts "$new/dev/pts" -o newinstance,ptmxmode=0666,mode=620
ln -s pts/ptmx "$new/dev/ptmx"
ln -s /proc/self/fd "$new/dev/fd"
ln -s /proc/self/fd/0 "$new/dev/stdin"
mount -t tmpfs tmpfs "$new/tmp" -o mode=1777
# not exec: this shell is the first process, and takes in those whose parents have ended
chroot "$new" "$@"
