#!/bin/sh
# await FILE: waits until a file is there, at most half a minute; a driver finds its card or disk in the background.
tries=0
until [ -e "$1" ]; do
  tries=$((tries + 1))
  [ $tries -gt 300 ] && { echo "$1 did not come"; exit 1; }
  usleep 100000
done
