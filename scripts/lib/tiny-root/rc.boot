#!/bin/sh
# Tiny image, at start: memory file systems, the seed, the network.
PATH=/bin
echo "tiny: image $(cat /etc/image-version) starts, kernel $(uname -r), $([ -d /sys/firmware/efi ] && echo UEFI || echo BIOS)"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/seed
: >/run/resolv.conf

if device=$(findfs LABEL=CIDATA 2>/dev/null) && mount -t vfat -o ro "$device" /seed; then
  cp /seed/* /run/seed/ 2>/dev/null
  umount /seed
fi
if [ -f /run/seed/meta-data ]; then
  hostname "$(sed -n 's/^local-hostname: *//p' /run/seed/meta-data | tr -d "\"'")"
else
  hostname tiny
fi
if [ -f /run/seed/user-data ]; then
  echo "tiny: user-data: $(wc -c </run/seed/user-data) bytes, sha256 $(sha256sum /run/seed/user-data | cut -d' ' -f1)"
else
  echo "tiny: no user-data"
fi

ip link set lo up
leased=
for path in /sys/class/net/*; do
  nic=${path##*/}
  [ "$nic" = lo ] && continue
  ip link set "$nic" up
  # In the foreground until the first lease or 20 tries; in the background, for the lease's sake, from then on.
  if [ -z "$leased" ] && udhcpc -i "$nic" -b -t 20 -T 1 -A 5 -s /etc/udhcpc.script -x "hostname:$(hostname)" >/dev/null 2>&1; then
    leased=$(ip -4 -o addr show dev "$nic" | sed -n 's/.* inet \([0-9.\/]*\).*/\1/p')
  fi
done
echo "tiny: up: host $(hostname), address ${leased:-none yet}, image $(cat /etc/image-version)"
