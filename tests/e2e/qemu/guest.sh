#!/bin/bash
# What the scripts beside it have in common: Debian's kernel, QEMU and busybox as packages in a cache, and an
# initramfs made of this machine's files. Sourced, never run:
#
#   source guest.sh PURPOSE     PURPOSE: what does not run when packages cannot be had, for the message
#   image=FOLDER                of the initramfs to be; set before functions that make it
#
#   BORE_QEMU_CACHE   default ~/.cache/bore-qemu
purpose=$1
cache=${BORE_QEMU_CACHE:-$HOME/.cache/bore-qemu}

skip() {
    echo "SKIPPED: $purpose did not run: $*" >&2
    exit 77
}

newest_program() { # NAME: the newest build
    find "$(dirname "${BASH_SOURCE[0]}")/../../.."/build/*/controlplane -name "$1" -type f -executable -printf '%T@ %p\n' 2> /dev/null |
        sort -n | tail -1 | cut -d' ' -f2- || true
}

# Packages

fetch() {
    [ ! -e "$cache/complete" ] || return 0
    command -v apt-get > /dev/null || skip "no apt-get on this system"
    mkdir -p "$cache/debs" "$cache/root"
    local kernel packages needed package
    kernel=$(apt-cache depends linux-image-cloud-amd64 2> /dev/null | awk '/Depends: linux-image-/ {print $2; exit}')
    [ -n "$kernel" ] || skip "apt does not know linux-image-cloud-amd64; run apt-get update"
    # What QEMU needs and this machine lacks comes along.
    needed=$(apt-get install --no-install-recommends --print-uris -y qemu-system-x86 busybox-static 2> /dev/null |
        awk "/^'/ {print \$2}" | sed 's/_.*//') || true
    packages="$kernel busybox-static qemu-system-x86 qemu-system-common qemu-system-data seabios $needed"
    for package in $(printf '%s\n' $packages | sort -u); do
        compgen -G "$cache/debs/${package}_*.deb" > /dev/null ||
            (cd "$cache/debs" && apt-get download -q "$package" > /dev/null 2>&1) || skip "apt-get could not download $package"
    done
    for package in "$cache"/debs/*.deb; do
        dpkg -x "$package" "$cache/root"
    done
    touch "$cache/complete"
}

busybox() { "$cache/root/bin/busybox" "$@"; }
kernel_image() { find "$cache/root/boot" -name 'vmlinuz-*-cloud-amd64' | sort -V | tail -1; }

qemu_command() { # one word a line, for mapfile; NICs need romfile= besides, their boot programs are not there
    printf '%s\n' env "LD_LIBRARY_PATH=$cache/root/usr/lib/x86_64-linux-gnu:$cache/root/lib/x86_64-linux-gnu" \
        "QEMU_MODULE_DIR=$cache/root/usr/lib/x86_64-linux-gnu/qemu" \
        "$cache/root/usr/bin/qemu-system-x86_64" \
        -machine q35,usb=off -accel tcg,thread=multi -cpu max -smp 2 \
        -nodefaults -no-user-config -display none -no-reboot \
        -L "$cache/root/usr/share/qemu" -L "$cache/root/usr/share/seabios" -kernel "$(kernel_image)"
}
# On a busy machine the emulated timer is late, and without no_timer_check the kernel takes it for broken and panics.
kernel_arguments() { echo "console=ttyS0 panic=-1 mitigations=off no_timer_check quiet"; }

# The initramfs

begin_image() { # APPLET...: busybox under these names
    local applet
    mkdir -p "${image:?}"/{dev,proc,sys,tmp,run,etc,root,bore,usr/{bin,sbin,lib,lib64,local}}
    ln -s usr/bin usr/sbin usr/lib usr/lib64 "$image"
    cp "$cache/root/bin/busybox" "$image/usr/bin/busybox"
    for applet in "$@"; do ln -s busybox "$image/usr/bin/$applet"; done
}

copy() { # FILE...: to the same place in the image, links as links: a library must not be there twice
    local file target
    for file in "$@"; do
        [ ! -e "$image$file" ] || continue
        mkdir -p "$image$(dirname "$file")"
        if [ -L "$file" ]; then
            target=$(readlink "$file")
            ln -sf "$target" "$image$file"
            case $target in /*) copy "$target" ;; *) copy "$(dirname "$file")/$target" ;; esac
        else
            cp "$file" "$image$file"
        fi
    done
}

copy_libraries() { # FILE...: every library that the dynamic linker would load for them
    local library
    for library in $(ldd "$@" 2> /dev/null | awk '$2 == "=>" && $3 ~ /^\// {print $3} $1 ~ /^\/.*ld-/ {print $1}' | sort -u); do
        copy "$library"
    done
    # Threads that end load this one by name.
    copy "$(realpath "$(gcc -print-file-name=libgcc_s.so.1 2> /dev/null || echo /lib/x86_64-linux-gnu/libgcc_s.so.1)")"
}

copy_modules() { # NAME...: with what they depend on, for the guest's modprobe
    local version folder name files
    version=$(basename "$(kernel_image)") && version=${version#vmlinuz-}
    folder=lib/modules/$version
    [ -e "$cache/root/$folder/modules.dep" ] || busybox depmod -b "$cache/root" "$version"
    for name in "$@"; do
        files=$(sed -n "s|^\(.*/$name\.ko\):|\1|p" "$cache/root/$folder/modules.dep")
        for files in $files; do
            mkdir -p "$(dirname "$image/$folder/$files")"
            cp "$cache/root/$folder/$files" "$image/$folder/$files"
        done
    done
    busybox depmod -b "$image" "$version"
}

pack_image() { # FILE
    (cd "$image" && find . | busybox cpio -o -H newc 2> /dev/null | gzip -1) > "$1"
}
