# The root of the UEFI guest: all of it lies on the system disk, but /home, which lies on the user disk. Partitions and formats that at its
# first start, as an installer would, and writes a line on it at each. Runs qemu-guest-agent where it has one.
insmod /modules/virtio_console.ko
insmod /modules/evdev.ko
insmod /modules/button.ko
mkdir -p /home /run /etc
user=$(grep -lx nacre-data /sys/block/vd*/serial | cut -d/ -f4)
if ! [ -b "/dev/${user}1" ]; then
  printf 'label: gpt\n,,L\n' | sfdisk -q "/dev/$user"
  until [ -b "/dev/${user}1" ]; do usleep 10000; done
  mkfs.ext4 -q "/dev/${user}1"
fi
mount -t ext4 "/dev/${user}1" /home
echo "$(cat /etc/issue), intruder: $(cat /bin/intruder 2>/dev/null || echo none)" >>/home/starts
sync

cat >/bin/shutdown <<'END'
#!/bin/sh
sync
umount /home
mount -o remount,ro /
poweroff -f
END
chmod 755 /bin/shutdown
ln -sfn /bin /sbin

# Where there is no agent the power button does it: a press is the first that its input device says.
for input in /dev/input/event*; do
  name=$(cat "/sys/class/input/${input##*/}/device/name")
  [ "$name" != "Power Button" ] || (dd if="$input" bs=24 count=1 of=/dev/null 2>/dev/null && shutdown) &
done
if [ -x /bin/qemu-ga ]; then
  for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" = org.qemu.guest_agent.0 ] && qemu-ga -m virtio-serial -p "/dev/${port##*/}" -t /run
  done
fi
while :; do sleep 3600; done
