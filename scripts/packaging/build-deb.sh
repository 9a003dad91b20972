#!/bin/sh
# The Debian package: the wheel, the lists of what it needs and the installer. The same files give the same bytes.
set -eu
umask 022
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1580601600}"
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
cd "$(dirname "$0")/../.."
tree=$(mktemp -d) && trap 'rm -rf "$tree"' EXIT
share=$tree/usr/share/transom doc=$tree/usr/share/doc/transom
mkdir -p "$tree/DEBIAN" "$share" "$doc" "$tree/usr/bin" "$tree/usr/sbin"
chmod 755 "$tree"
scripts/build-wheel "$share" >/dev/null
version=$(basename "$share"/transom-*.whl | cut -d- -f2)
cp -r constraints.txt light.txt locks scripts/packaging/install.sh "$share"
cp scripts/packaging/deb/transom "$tree/usr/bin"
cp scripts/packaging/deb/transom-setup "$tree/usr/sbin"
for name in preinst postinst prerm postrm; do cp "scripts/packaging/deb/$name" "$tree/DEBIAN"; done
cp scripts/packaging/deb/copyright "$doc"
printf 'transom (%s) stable; urgency=medium\n\n  * See CHANGELOG.md of the project.\n\n -- Transom <transom@localhost>  %s\n' \
    "$version" "$(date -R -u -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
find "$tree" -type f ! -path "$tree/DEBIAN/*" -exec chmod 644 {} +
chmod 755 "$tree"/DEBIAN/* "$tree/usr/bin/transom" "$tree/usr/sbin/transom-setup" "$share/install.sh"
sed -e "s/@VERSION@/$version/" -e "s/@SIZE@/$(du -sk "$tree/usr" | cut -f1)/" scripts/packaging/deb/control >"$tree/DEBIAN/control"
chmod 644 "$tree/DEBIAN/control"
(cd "$tree" && find usr -type f -print | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums && chmod 644 DEBIAN/md5sums)
dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/transom_${version}_all.deb" >/dev/null
echo "$out/transom_${version}_all.deb"
