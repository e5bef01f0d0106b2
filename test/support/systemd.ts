import { execFileSync, spawn, spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { userInfo } from "node:os"
import { join } from "node:path"
import { execute } from "./published.ts"

/** A systemd that runs as the first process of namespaces of its own. It shares only the network with this machine. */
export interface Systemd {
  /** Runs a program beside the units, and returns its standard output. The error of a failed program contains its output. */
  readonly run: (program: string, ...args: ReadonlyArray<string>) => Promise<string>
  /** What a unit has printed. */
  readonly log: (unit: string) => string
  readonly stop: () => void
}

export interface Options {
  /** An empty folder for what this needs. */
  readonly folder: string
  /** The folder that is `/opt/sluice`. */
  readonly installed: string
}

const systemd = "/lib/systemd/systemd"

/**
 * The shell is the first process of new namespaces. **Nothing of this machine can be written there**: the file system is read-only,
 * and folders for data are new and empty. A systemd deletes files when it starts, such as those in `/tmp`. This one finds none of the
 * machine's units, and would find none of its files.
 */
const boxScript = `set -eu
installed=$1 units=$2 node=$3; shift 3
mount --make-rprivate /
mount -t tmpfs tmpfs /opt
mkdir /opt/sluice && mount --bind "$installed" /opt/sluice
mount -t tmpfs tmpfs /usr/local/bin
touch /usr/local/bin/node && mount --bind "$node" /usr/local/bin/node
mount -t tmpfs tmpfs /mnt
mkdir /mnt/units && mount --bind "$units" /mnt/units
mount --bind /proc/sys /proc/sys
umount -R /sys/fs/cgroup
for place in / /dev /sys /proc/sys /opt/sluice /usr/local/bin/node /mnt/units; do mount -o remount,bind,ro "$place"; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for place in /run /tmp /var; do mount -t tmpfs tmpfs "$place"; done
mkdir -p /run/log /run/etc/upper /run/etc/work /run/systemd/system /var/tmp /var/lib
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
for place in / /usr /root /home /dev /proc/sys/kernel; do
  if touch "$place/sluice-probe" 2>/dev/null; then echo "$place can be written" >&2; exit 1; fi
done
mkdir -p /etc/systemd/system
exec "$@"`

/** Starts the shell above, and ends everything with its own standard input: also if the test is killed, or stopped by Ctrl-C. */
const guardScript = `cgroup=$1 box=$2; shift 2
trap '' INT TERM HUP
mkdir "$cgroup" || exit 1
(echo 0 > "$cgroup/cgroup.procs" && exec unshare --fork --pid --mount --uts --ipc --cgroup --kill-child --mount-proc "$box" "$@") </dev/null &
echo $!
cat >/dev/null
kill -9 $! 2>/dev/null && wait $! 2>/dev/null
for tries in 1 2 3 4 5; do find "$cgroup" -depth -type d -exec rmdir {} \\; 2>/dev/null; [ -d "$cgroup" ] || exit 0; sleep 0.2; done`

/** Only what the units need from systemd itself. */
const targets = ["sysinit", "basic", "shutdown", "network-online", "multi-user"]

const cgroups = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].find((place) => existsSync(join(place, "cgroup.procs")))

/** Why no systemd is started here. `undefined` if it can. It needs root and changes mounts, so it has to be asked for. */
export const reasonAgainst = (): string | undefined => {
  if (process.env["SLUICE_SYSTEMD"] !== "true") return "it runs with SLUICE_SYSTEMD=true"
  if (process.platform !== "linux" || !existsSync(systemd)) return "no systemd is installed"
  if (userInfo().uid !== 0) return "only root can start one"
  if (cgroups === undefined) return "the machine has no cgroups of version 2"
  const script =
    "mount --make-rprivate / && mount -t tmpfs tmpfs /mnt && mount -o remount,bind,ro / && ! touch /sluice-probe"
  const { status } = spawnSync("unshare", ["--fork", "--pid", "--mount", "--cgroup", "sh", "-c", script])
  return status === 0 ? undefined : "it may not make namespaces"
}

export const boot = async ({ folder, installed }: Options): Promise<Systemd> => {
  const units = join(folder, "units")
  mkdirSync(join(units, "service.d"), { recursive: true })
  for (const target of targets) writeFileSync(join(units, `${target}.target`), "[Unit]\nDefaultDependencies=no\n")
  // Without a journal.
  writeFileSync(
    join(units, "service.d", "log.conf"),
    "[Service]\nStandardOutput=append:/run/log/%n\nStandardError=append:/run/log/%n\n"
  )
  const box = join(folder, "box.sh")
  writeFileSync(box, `#!/bin/sh\n${boxScript}\n`, { mode: 0o755 })
  const cgroup = join(cgroups ?? "", `sluice-test-${process.pid}`)
  const inside = ["env", "-i", "container=sluice", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
  const own = ["SYSTEMD_UNIT_PATH=/etc/systemd/system:/mnt/units", "SYSTEMD_GENERATOR_PATH=/mnt"]
  const guard = spawn(
    "sh",
    [
      "-c",
      guardScript,
      "sh",
      cgroup,
      box,
      installed,
      units,
      process.execPath,
      ...inside,
      ...own,
      systemd,
      "--system",
      "--unit=basic.target",
      "--log-target=console"
    ],
    { stdio: ["pipe", "pipe", "pipe"] }
  )
  let said = ""
  guard.stderr.on("data", (data: Buffer) => said += data.toString())
  guard.unref()
  const unshare = await new Promise<string>((resolve, reject) => {
    guard.stdout.once("data", (data: Buffer) => resolve(data.toString().trim()))
    guard.once("close", () => reject(new Error(`no systemd has started: ${said}`)))
  })
  /** The first process, as this machine numbers it. */
  const first = (): string => {
    const children = `/proc/${unshare}/task/${unshare}/children`
    if (!existsSync(children)) throw new Error(`systemd has ended: ${said}`)
    return readFileSync(children, "utf8").trim()
  }
  const run = (program: string, ...args: ReadonlyArray<string>) =>
    execute("nsenter", ["-t", first(), "-a", "--", "env", "-i", ...own, inside.at(-1) ?? "", program, ...args], folder)
  for (let tries = 0;; tries++) {
    const state = await run("systemctl", "is-active", "basic.target").catch(String)
    if (state === "active\n") break
    if (tries === 300) throw new Error(`systemd has not come up: ${state}${said}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return {
    run,
    log: (unit) => execFileSync("cat", [`/proc/${first()}/root/run/log/${unit}`], { encoding: "utf8" }),
    stop: () => void guard.stdin.end()
  }
}
