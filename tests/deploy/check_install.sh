#!/usr/bin/env bash
# Installs a finished build into an empty folder and checks what a machine would get: the programs
# run, systemd accepts the unit and the user, man finds no fault in the pages.
# Called by tools/test: check_install.sh BUILD_FOLDER. One line for each check; ends non-zero if one
# failed.
set -uo pipefail

build=$(realpath "$1")
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
failures=0

check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok: $what"
    else
        echo "FAILED: $what: $* said:"
        echo "$output"
        failures=$((failures + 1))
    fi
}

# Succeeds when the command complains of nothing: some checkers warn without an exit code.
# shellcheck disable=SC2317  # called through check
silent() {
    local output
    output=$("$@" 2>&1 >/dev/null) || { echo "$output"; return 1; }
    echo "$output"
    [ -z "$output" ]
}

# The unit with the packet engine's drop-in, comments taken off, so that every line of it is looked at.
# shellcheck disable=SC2317  # called through check
with_drop_in() {
    local folder=$target/etc/systemd/system/bore-server.service.d result=0
    mkdir -p "$folder"
    sed 's/^#\([A-Z]\)/\1/' "$prefix/share/doc/bore/bore-server-packet.conf" >"$folder/packet.conf"
    grep -q '^SystemCallFilter=bpf' "$folder/packet.conf" &&
        silent systemd-analyze --root="$target" --man=no verify "$unit" || result=1
    rm -r "$folder"
    return "$result"
}

# Types `borectl dr`, `borectl top --so` and `borectl loglevel w` for bash, and looks at what it offers.
# shellcheck disable=SC2317  # called through check
completes() {
    bash -euc 'source "$1"
        offer() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _borectl; echo "${COMPREPLY[*]}"; }
        [ "$(offer borectl dr)" = "drops drain" ] || offer borectl dr
        [ "$(offer borectl top --so)" = --sort ]
        [ "$(offer borectl top --sort vi)" = visits ]
        [ "$(offer borectl --relay x loglevel w)" = warning ]' \
        bash "$prefix/share/bash-completion/completions/borectl"
}

check "installs" env DESTDIR="$target" meson install -C "$build" --no-rebuild --quiet
prefix=$target/usr/local

check "bore-server starts" "$prefix/bin/bore-server" --version
check "bore starts" "$prefix/bin/bore" --version
check "bore-exporter starts" "$prefix/bin/bore-exporter" --version
check "borectl starts" "$prefix/bin/borectl" --version
check "bash completes borectl's commands and options" completes
check "the sample configuration is valid" \
    "$prefix/bin/bore-server" --config "$prefix/share/doc/bore/bore-server.toml" --check-config

for page in man1/bore.1 man1/borectl.1 man5/bore-server.toml.5 man7/bore-control.7 \
    man8/bore-exporter.8 man8/bore-server.8; do
    check "man page $page" silent env MANROFFSEQ='' MANWIDTH=80 LC_ALL=C.UTF-8 \
        man --warnings -E UTF-8 -l -Tutf8 "$prefix/share/man/$page"
done

unit=$prefix/lib/systemd/system/bore-server.service
# A folder that looks like a machine's root to systemd: the units that ours names, and a user.
mkdir -p "$target/etc" "$target/usr/lib/systemd" "$target/bin"
cp -r /usr/lib/systemd/system "$target/usr/lib/systemd/"
cp /bin/kill /bin/sh "$target/bin/"
check "systemd accepts the unit" silent systemd-analyze --root="$target" --man=no verify "$unit"
check "systemd accepts the packet engine's drop-in" with_drop_in
check "systemd accepts the exporter's unit" silent systemd-analyze --root="$target" --man=no \
    verify "$prefix/lib/systemd/system/bore-exporter.service"
check "systemd-sysusers makes the user" systemd-sysusers --root="$target" "$prefix/lib/sysusers.d/bore.conf"
check "the user is there" grep -q '^bore:' "$target/etc/passwd"

# What the alerts link to and what Grafana is told to read.
# shellcheck disable=SC2317  # called through check
links_lead_somewhere() {
    local link result=0
    while read -r link; do
        [ -f "$target$link" ] || { echo "$link is not installed"; result=1; }
    done < <(sed -n 's|.*runbook_url: file://||p' "$monitoring/bore-alerts.yml")
    return "$result"
}
# shellcheck disable=SC2317  # called through check
completes_exporter() {
    bash -c '. "$1" && COMP_WORDS=(bore-exporter --tun) COMP_CWORD=1 && _bore_exporter &&
        [ "${COMPREPLY[*]}" = --tunnel-series ]' bash "$1"
}
monitoring=$prefix/share/doc/bore/monitoring
check "runbooks are where the alerts say" links_lead_somewhere
check "dashboards are there" test -f "$monitoring/grafana/dashboards/bore-overview.json"
check "promtool takes the installed configuration" promtool check config "$monitoring/prometheus.yml"
check "bash completes bore-exporter" completes_exporter \
    "$prefix/share/bash-completion/completions/bore-exporter"

exit $((failures > 0))
