# shellcheck shell=bash
# Building whole-disk images without root, loop devices or mounts. Source it after common.sh. All work is done in $WORK.
#
# Layout (GPT):
#
#   1  ESP     FAT   EFI/BOOT/BOOTX64.EFI, a unified kernel image, for UEFI; syslinux, kernel and initrd for BIOS
#   2  CIDATA  FAT   empty; the installer puts the NoCloud seed here
#   3  root    ext4  last, so that it can grow

SYSLINUX_MBR=/usr/lib/syslinux/mbr/gptmbr.bin
UEFI_STUB=/usr/lib/systemd/boot/efi/linuxx64.efi.stub
ESP_MIB=0 CIDATA_MIB=2

# shellcheck disable=SC2034 # read by the scripts that source this
DISK_IMAGE_PACKAGES=(binutils dosfstools e2fsprogs gdisk mtools syslinux syslinux-common systemd-boot-efi zstd)

# make_uki OUT KERNEL INITRD CMDLINE-FILE OS-RELEASE-FILE: a unified kernel image. The sections go behind the stub's own, each at the next
# address that the stub's section alignment allows.
make_uki() {
  local out=$1 align end=0 size vma name file args=()
  align=$((0x$(objdump -p "$UEFI_STUB" | awk '$1 == "SectionAlignment" { print $2 }')))
  while read -r size vma; do
    if ((0x$size + 0x$vma > end)); then end=$((0x$size + 0x$vma)); fi
  done < <(objdump -h "$UEFI_STUB" | awk '$1 ~ /^[0-9]+$/ { print $3, $4 }')
  for name in .osrel="$5" .cmdline="$4" .linux="$2" .initrd="$3"; do
    file=${name#*=} name=${name%%=*}
    end=$(((end + align - 1) / align * align))
    args+=(--add-section "$name=$file" --change-section-vma "$name=$(printf '0x%x' "$end")")
    end=$((end + $(stat -Lc %s "$file")))
  done
  objcopy "${args[@]}" "$UEFI_STUB" "$out"
  # objcopy puts the time into the PE header, and a checksum that depends on it. Nobody needs either; zero keeps builds equal.
  local header
  header=$(($(od -An -tu4 -j60 -N4 "$out")))
  dd if=/dev/zero of="$out" bs=1 count=4 seek=$((header + 8)) conv=notrunc status=none
  dd if=/dev/zero of="$out" bs=1 count=4 seek=$((header + 88)) conv=notrunc status=none
}

# make_fat OUT LABEL MIB: an empty FAT file system; its serial number follows from the label and $IMAGE_ID.
make_fat() {
  local serial
  serial=$(uuid_of "$IMAGE_ID/fat/$2")
  truncate -s "${3}M" "$1"
  mkfs.vfat --invariant -i "${serial:0:8}" -n "$2" "$1" >/dev/null
}

# make_esp OUT MIB KERNEL INITRD CMDLINE OS-RELEASE-FILE
make_esp() {
  local out=$1 mib=$2 kernel=$3 initrd=$4 cmdline=$5 os_release=$6
  ESP_MIB=$mib
  printf '%s' "$cmdline" >"$WORK/cmdline"
  make_uki "$WORK/uki.efi" "$kernel" "$initrd" "$WORK/cmdline" "$os_release"
  printf 'DEFAULT linux\nPROMPT 0\nTIMEOUT 1\nSERIAL 0 115200\nLABEL linux\n  KERNEL /vmlinuz\n  INITRD /initrd.img\n  APPEND %s\n' "$cmdline" \
    >"$WORK/syslinux.cfg"
  make_fat "$out" ESP "$mib"
  mmd -i "$out" ::/EFI ::/EFI/BOOT
  mcopy -i "$out" "$WORK/uki.efi" ::/EFI/BOOT/BOOTX64.EFI
  mcopy -i "$out" "$kernel" ::/vmlinuz
  mcopy -i "$out" "$initrd" ::/initrd.img
  mcopy -i "$out" "$WORK/syslinux.cfg" ::/syslinux.cfg
  TMPDIR=$WORK syslinux --install "$out"
}

# make_disk OUT ESP ROOT ROOT-MIB: joins the file systems to a disk that boots by BIOS and by UEFI.
make_disk() {
  local out=$1 esp=$2 root=$3 root_mib=$4 number part start
  make_fat "$WORK/cidata" CIDATA "$CIDATA_MIB"
  rm -f -- "$out"
  truncate -s "$((ESP_MIB + CIDATA_MIB + root_mib + 2))M" "$out" # 1 MiB in front for alignment, 1 MiB behind for the second table
  # Attribute 2, "legacy BIOS bootable", is how gptmbr.bin finds the ESP.
  sgdisk --clear --disk-guid="$(uuid_of "$IMAGE_ID/disk")" \
    --new="1:2048:+${ESP_MIB}M" --typecode=1:ef00 --change-name=1:ESP --partition-guid=1:"$(uuid_of "$IMAGE_ID/1")" --attributes=1:set:2 \
    --new="2:0:+${CIDATA_MIB}M" --typecode=2:0700 --change-name=2:CIDATA --partition-guid=2:"$(uuid_of "$IMAGE_ID/2")" \
    --new="3:0:+${root_mib}M" --typecode=3:8300 --change-name=3:root --partition-guid=3:"$(uuid_of "$IMAGE_ID/3")" \
    "$out" >/dev/null
  dd if="$SYSLINUX_MBR" of="$out" conv=notrunc bs=440 count=1 status=none
  number=1
  for part in "$esp" "$WORK/cidata" "$root"; do
    start=$(sgdisk --info="$number" "$out" | awk '/^First sector:/ { print $3 }')
    dd if="$part" of="$out" bs=1M oflag=seek_bytes seek="$((start * 512))" conv=notrunc,sparse status=none
    number=$((number + 1))
  done
}

# compress_disk RAW: writes RAW.zst and RAW.zst.sha256 (a line for `sha256sum -c`) beside it.
compress_disk() {
  zstd -q -f -3 -T0 -o "$1.zst" -- "$1"
  (cd -- "$(dirname -- "$1")" && sha256sum "$(basename -- "$1").zst") >"$1.zst.sha256"
}
