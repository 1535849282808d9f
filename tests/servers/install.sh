#!/usr/bin/env bash
# Installs the servers and readers that the integration tests talk to, pinned, outside the checkout.
# Idempotent: what is there with the same recipe is skipped.   install.sh [kafka] [python]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${FRESHET_IT_HOME:-$HOME/.cache/freshet-it}
mkdir -p "$home"
exec 9>"$home/.lock"
flock 9

# install NAME RECIPE-FILE... : runs install_NAME into a fresh directory, renamed into place when it is whole.
install() {
  local name=$1 target recipe
  shift
  target=$home/$name
  recipe=$(cat "$@" | sha256sum | cut -d' ' -f1)
  if [[ -f $target/.ok && $(<"$target/.ok") == "$recipe" ]]; then return; fi
  echo "installing $name into $home"
  rm -rf "$target" "$target".tmp.*
  local tmp=$target.tmp.$$
  mkdir -p "$tmp"
  "install_$name" "$tmp" "$target"
  echo "$recipe" >"$tmp/.ok"
  mv "$tmp" "$target"
}

install_kafka() {
  mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$1/libs"
  (cd "$1/libs" && sha256sum --quiet -c "$here/kafka/sha256sums")
  cp "$here/kafka/log4j2.yaml" "$1/"
  # What `format` writes holds neither path nor port: made once here, copied for each run.
  sed -e "s|@RUN@|$1|; s|@PORT@|19092|; s|@CONTROLLER@|19093|" "$here/kafka/server.properties" >"$1/format.properties"
  java -cp "$1/libs/*" -Dlog4j2.configurationFile="$1/log4j2.yaml" kafka.tools.StorageTool format --ignore-formatted \
    -t AAAAAAAAAAAAAAAAAAAAAA -c "$1/format.properties" >/dev/null
}

install_python() {
  # A virtual environment holds its own path, so it is made where it will stay.
  python3 -m venv "$2.venv.$$"
  "$2.venv.$$/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
  ln -s "$2.venv.$$" "$1/venv"
}

for name in "${@:-kafka python}"; do
  for one in $name; do
    case $one in
    kafka) install kafka "$here/kafka/pom.xml" "$here/kafka/server.properties" "$here/kafka/log4j2.yaml" ;;
    python) install python "$here/requirements.txt" ;;
    *) echo "unknown server $one (kafka, python)" >&2 && exit 2 ;;
    esac
  done
done
