#!/bin/bash
# Fetches runtime-tools from Debian's source package, builds its validation programs with Debian's Go, and prints where they are.
# The second time it only prints.
#
#   suite.sh            below target/conformance; needs root if packages are missing
#
# It uses package lists of its own, so that the host's lists stay as they are. The version is the same for each host, because
# runtime-tools-expected-failures is about that version. Debian has no tap-go, with which the programs print; ./tap replaces it.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$(dirname "$here")")
release=trixie
package=golang-github-opencontainers-runtime-tools
version=0.9.0.109.ge931285-1
suite=$top/target/conformance/$package-$version
if [ -e "$suite/COMMIT" ]; then
    echo "$suite"
    exit
fi

"$top/tools/need" go:golang-go -- golang-github-blang-semver-dev golang-github-google-uuid-dev \
    golang-github-hashicorp-go-multierror-dev golang-github-mrunalp-fileutils-dev golang-github-opencontainers-specs-dev \
    golang-github-opencontainers-selinux-dev golang-github-sirupsen-logrus-dev golang-gocapability-dev \
    golang-github-urfave-cli-dev golang-github-xeipuuv-gojsonschema-dev golang-golang-x-sys-dev >&2

mkdir -p "$top/target/conformance"
scratch=$(mktemp -d "$top/target/conformance/build.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 'Component: main' |
    awk '$1 == "Debian" && $2 ~ /\/debian\/?$/ { print $2; exit }')
[ -n "$mirror" ] || { echo "apt has no Debian mirror here, to take $package from" >&2; exit 1; }
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >sources.list
mkdir -p lists/partial archives/partial
apt=(apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$scratch/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$scratch/lists" -o Dir::Cache="$scratch")
"${apt[@]}" update >&2
# Only the upstream part: Debian's patches do not concern these programs. Apt checks the hash.
"${apt[@]}" source --tar-only "$package=$version" >&2

source=$scratch/src/github.com/opencontainers/runtime-tools
mkdir -p "$source" "$scratch/src/github.com/mndrix"
tar -C "$source" --strip-components=1 -xf "$scratch/$package"_*.orig.tar.*
cp -r "$here/tap" "$scratch/src/github.com/mndrix/tap-go"
cd "$source"
# As Debian builds: from a path of sources and without modules, so nothing is fetched.
export GO111MODULE=off GOFLAGS= GOPATH=$scratch:/usr/share/gocode GOCACHE=$scratch/cache
go build -tags "netgo osusergo" -ldflags "-extldflags -static -s -w" -o runtimetest ./cmd/runtimetest
mkdir "$scratch/bin"
go build -ldflags "-s -w" -o "$scratch/bin/" ./validation/...
for program in "$scratch"/bin/*; do
    mv "$program" "validation/${program##*/}/${program##*/}.t"
done
sed 's/.*\.g\([0-9a-f]*\)-.*/\1/' <<<"$version" >COMMIT
rm -rf "$suite"
mv "$source" "$suite"
echo "$suite"
