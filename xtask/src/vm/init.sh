#!/bin/sh
# The guest's first process, in the initramfs: makes the host's files its own, read-only below and memory above.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
  insmod "/modules/$module" || echo "ana-vm: no module $module"
done
mkdir -p /host /memory /root
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host || echo "ana-vm: no files of the host"
mount -t tmpfs -o size=75% memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /root
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm
# As udev does.
ln -s /proc/self/fd /root/dev/fd
for stream in 0/stdin 1/stdout 2/stderr; do
  ln -s "/proc/self/fd/${stream%/*}" "/root/dev/${stream#*/}"
done
mount -t devpts -o ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mkdir -p /root/var/lib/ana-tests
for folder in run tmp var/lib/ana; do
  mkdir -p "/root/$folder"
  mount -t tmpfs -o mode=755,size=75% memory "/root/$folder"
done
chmod 1777 /root/tmp
mount -t cgroup2 cgroup /root/sys/fs/cgroup
mount -t bpf bpf /root/sys/fs/bpf
mount -t tracefs tracefs /root/sys/kernel/tracing
mount -t securityfs security /root/sys/kernel/security
cp /guest.sh /task.sh /root/run/
exec switch_root /root /bin/sh /run/guest.sh
