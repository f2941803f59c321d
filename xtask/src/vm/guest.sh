# The guest's first process, in the host's files: has the task done, says on the second serial line how the tests ended,
# and switches off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
hostname ana-vm
ip link set lo up
stty -F /dev/ttyS1 raw
ulimit -n 65536
# Overlayfs has each hard link as a file of its own, and a git that was installed by hand consists of them: Debian's.
rm -f /usr/local/bin/git /usr/local/bin/git-*
# What is installed for their user lies in that folder, and is not installed anew: there is no network.
pytest=/var/lib/ana-tests/installed/pytest
[ ! -d $pytest ] || { mkdir /run/pytest && mount --bind $pytest /run/pytest; }
# What the tests protect lies on a disk of the usual kind.
truncate -s 4G /run/disk && mkfs.ext4 -q /run/disk && mount -o loop /run/disk /var/lib/ana-tests
[ ! -d /run/pytest ] || { mkdir -p $pytest && mount --bind /run/pytest $pytest; }
# To a pipe, as on the host, and not to a terminal.
{
  echo "ana-vm: up, Linux $(uname -r)"
  sh /run/task.sh
  echo "ana-vm: over"
} 2>&1 </dev/null | cat >/dev/ttyS1
echo o >/proc/sysrq-trigger
while :; do sleep 60; done
