# The initramfs of the UEFI guest: goes on with the root file system on the second partition of the disk it started from.
until [ -b /dev/vda2 ]; do usleep 10000; done
mount -t ext4 /dev/vda2 /mnt || poweroff -f
exec switch_root /mnt /init
