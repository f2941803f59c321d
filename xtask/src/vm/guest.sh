# The guest's only task, in the host's files: says on the second serial line how the tests ended, and switches off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
hostname ana-vm
ip link set lo up
stty -F /dev/ttyS1 raw
exec >/dev/ttyS1 2>&1 </dev/null
echo "ana-vm: up, Linux $(uname -r)"
@TASK@
echo "ana-vm: over"
echo o >/proc/sysrq-trigger
while :; do sleep 60; done
