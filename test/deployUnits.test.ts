import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Server } from "../packages/sql/test/support/server.ts"
import * as Postgres from "../packages/sql/test/support/server.ts"
import { install, publish } from "./support/published.ts"
import * as Systemd from "./support/systemd.ts"

// The units as they are, under a systemd of this test, as docs/deployment.md installs them: the packed packages, a Postgres, a provider.

const examples = fileURLToPath(new URL("../examples/deploy/", import.meta.url))

/** The commands of a section of the page, without those of npm. */
const documented = (heading: string): string => {
  const page = readFileSync(fileURLToPath(new URL("../docs/deployment.md", import.meta.url)), "utf8")
  const [, section = ""] = page.split(`\n## ${heading}\n`)
  const [, block = ""] = /```sh\n([^]*?)```/.exec(section) ?? []
  assert.notStrictEqual(block, "", heading)
  return block.split("\n").filter((line) => !line.startsWith("npm ")).join("\n")
}

const against = Systemd.reasonAgainst() ?? (Postgres.isInstalled() ? undefined : "no Postgres is installed")
if (against !== undefined) process.stderr.write(`the units of systemd: skipped, ${against}\n`)

const answered = 150
const atOnce = 8

describe.skipIf(against !== undefined)("the units of systemd", { timeout: 240_000 }, () => {
  let workshop = ""
  let postgres: Server | undefined
  let systemd: Systemd.Systemd | undefined
  beforeAll(async () => {
    workshop = mkdtempSync(join(tmpdir(), "sluice-units-"))
    const installed = join(workshop, "installed")
    install(await publish(workshop), installed)
    postgres = await Postgres.startServer()
    systemd = await Systemd.boot({ folder: workshop, installed })
  }, 240_000)
  afterAll(() => {
    systemd?.stop()
    postgres?.stop()
    rmSync(workshop, { recursive: true, force: true })
  })

  it.live(
    "a batch is answered by workers of which one is killed and one is stopped, beside a gateway that is reloaded and stopped",
    () =>
      Effect.gen(function*() {
        if (systemd === undefined || postgres === undefined) return assert.fail("nothing has started")
        const { log } = systemd
        const run = (program: string, ...args: ReadonlyArray<string>) =>
          Effect.promise(() => systemd?.run(program, ...args) ?? Promise.reject(new Error("it was stopped")))
        const shell = (script: string) => run("sh", "-euc", script)
        // What a person does at a terminal: with the variables of the units.
        const sluice = (command: string) =>
          shell(`set -a; . /etc/sluice/sluice.env; set +a; cd /etc/sluice; sluice ${command}`)
        const show = (unit: string, property: string) =>
          Effect.map(run("systemctl", "show", unit, "-P", property), (text) => text.trim())
        const endOf = (unit: string) => Effect.all([show(unit, "Result"), show(unit, "ExecMainStatus")])
        const port = 20_000 + process.pid % 10_000

        let come = 0
        const begun = Effect.gen(function*() {
          for (let tries = 0; tries < 600; tries++) {
            if (come >= 20) return
            yield* Effect.sleep("100 millis")
          }
          assert.fail(`${come} calls have come`)
        })
        const provider = yield* LoopbackProvider.make({
          turns: () => {
            come++
            return Turn.answer("Yes", { firstTokenMillis: 1_500 })
          }
        })
        const apiKey = provider.apiKey === undefined ? "" : Redacted.value(provider.apiKey)

        // The files of the example, with the values of this place.
        const settings = JSON.stringify({
          serve: { target: [`main=${provider.url}#rules`], concurrency: String(atOnce) }
        })
        const variables = [
          `SLUICE_KEY_MAIN=${apiKey}`,
          ...["KEYS", "BATCHES", "STORE"].map((name) => `SLUICE_${name}=${postgres?.url}`),
          `SLUICE_PORT=${port}`
        ].join("\n")
        yield* shell(`mkdir -p /tmp/files/systemd && cp ${examples}systemd/*.service /tmp/files/systemd`)
        yield* shell(`cat > /tmp/files/systemd/sluice.env <<'END'\n${variables}\nEND`)
        yield* shell(`cat > /tmp/files/sluice.json <<'END'\n${settings}\nEND`)
        const [token = ""] = /sluice_\S+/.exec(yield* shell(`cd /tmp/files/systemd\n${documented("systemd")}`)) ?? []
        assert.notStrictEqual(token, "")
        assert.deepStrictEqual(yield* endOf("sluice-migrate"), ["success", "0"])
        const get = (path: string, init?: RequestInit) =>
          Effect.promise(() =>
            fetch(`http://127.0.0.1:${port}${path}`, init).then(
              async (response) => ({ status: response.status, text: await response.text() }),
              (error: unknown) => ({ status: 0, text: String(error) })
            )
          )
        const ready = Effect.gen(function*() {
          for (let tries = 0; tries < 300; tries++) {
            if ((yield* get("/ready")).status === 200) return
            yield* Effect.sleep("100 millis")
          }
          assert.fail(log("sluice-gateway.service"))
        })
        yield* ready

        // No process runs as root, and none may read the file with the passwords.
        for (const unit of ["sluice-gateway", "sluice-worker@1"]) {
          assert.notInclude(["", "0"], (yield* shell(`stat -c %u /proc/$(systemctl show ${unit} -P MainPID)`)).trim())
        }
        assert.strictEqual(yield* shell("stat -c '%U %a' /etc/sluice/sluice.env"), "root 600\n")

        // Two workers, one of which is killed, and comes back. One is stopped, and finishes its calls.
        yield* run("systemctl", "start", "sluice-worker@2")
        const first = yield* show("sluice-worker@1", "MainPID")
        yield* shell(`seq ${answered} | sed 's/.*/{"id": "p&", "prompt": "Question &"}/' > /tmp/prompts.jsonl`)
        const id = (yield* sluice("batch submit /tmp/prompts.jsonl --model rules")).trim()
        yield* begun
        yield* run("systemctl", "kill", "--signal=KILL", "sluice-worker@1")
        yield* Effect.sleep("300 millis")
        const before = Date.now()
        yield* run("systemctl", "stop", "sluice-worker@2")
        assert.isBelow(Date.now() - before, 20_000)
        assert.deepStrictEqual(yield* endOf("sluice-worker@2"), ["success", "0"])

        // The gateway answers a call while it is told to stop.
        yield* run("systemctl", "reload", "sluice-gateway")
        const call = yield* Effect.forkChild(get("/v1/chat/completions", {
          method: "POST",
          headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
          body: JSON.stringify({ model: "rules", messages: [{ role: "user", content: "Is it up?" }] })
        }))
        yield* Effect.sleep("700 millis")
        yield* run("systemctl", "stop", "sluice-gateway")
        assert.strictEqual((yield* Fiber.join(call)).status, 200)
        assert.deepStrictEqual(yield* endOf("sluice-gateway"), ["success", "0"])

        const results = (yield* sluice(`batch results ${id} --follow`)).trim().split("\n").map((line) =>
          JSON.parse(line)
        )
        assert.strictEqual(new Set(results.map(({ id }) => id)).size, answered)
        assert.deepStrictEqual(new Set(results.map(({ status }) => status)), new Set(["ok"]))
        assert.notStrictEqual(yield* show("sluice-worker@1", "MainPID"), first)
        assert.strictEqual(yield* show("sluice-worker@1", "NRestarts"), "1")
        // Only what ran in the killed worker was sent twice. One call is the gateway's.
        assert.isAtMost(come, answered + atOnce + 1)
      }),
    240_000
  )
})
