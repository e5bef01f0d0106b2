import { assert, beforeAll, describe, it, onTestFinished } from "@effect/vitest"
import { spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join, posix } from "node:path"
import { afterAll } from "vitest"
import { execute, makeProject, publish, type Published, tsc } from "./support/published.ts"

// The packages as they are published: built from a clean copy, packed, unpacked elsewhere, and used without our export condition.
let workshop = ""
let packages: ReadonlyArray<Published> = []
beforeAll(async () => {
  workshop = mkdtempSync(join(tmpdir(), "sluice pack "))
  packages = await publish(workshop)
}, 180_000)
afterAll(() => rmSync(workshop, { recursive: true, force: true }))

const named = (name: string): Published => {
  const found = packages.find(({ manifest }) => manifest.name === name)
  assert.isDefined(found, `${name} was not packed`)
  return found
}

const read = (one: Published, file: string): string => readFileSync(join(one.folder, file), "utf8")

/** The specifier of every module that can be imported. */
const modulesOf = ({ files, manifest }: Published): ReadonlyArray<string> =>
  "." in manifest.exports
    ? files
      .filter((file) => /^dist\/.*\.js$/.test(file) && !file.startsWith("dist/internal/"))
      .map((file) => posix.join(manifest.name, file.slice("dist/".length, -".js".length).replace(/(^|\/)index$/, "")))
      .map((specifier) => specifier.replace(/\/$/, ""))
    : []

describe("the tarballs", () => {
  it("a tarball has the build, its sources, the manifest, the README, the licence, the price list and the live page, and nothing else", () => {
    for (const { files, manifest } of packages) {
      for (const file of ["package.json", "README.md", "LICENSE"]) assert.include(files, file, manifest.name)
      const others = files.filter((file) =>
        !/^(package\.json|prices\.json|README\.md|LICENSE|dist\/.+\.(js|d\.ts)(\.map)?|src\/.+\.ts|page\/.+\.(html|css|js))$/
          .test(file)
      )
      assert.deepStrictEqual(others, [], manifest.name)
      assert.deepStrictEqual(files.filter((file) => /\.test\./.test(file)), [], manifest.name)
    }
  })

  it("a tarball has every source of its source maps", () => {
    for (const one of packages) {
      for (const file of one.files.filter((file) => file.endsWith(".map"))) {
        const { sources } = JSON.parse(read(one, file)) as { readonly sources: ReadonlyArray<string> }
        for (const source of sources) assert.include(one.files, posix.join(posix.dirname(file), source), file)
      }
    }
  })

  it("a package runs no script when it is installed", () => {
    // `prepack` builds a package that is packed in a fresh clone.
    for (const { manifest } of packages) assert.deepStrictEqual(manifest.scripts, { prepack: "tsc -b" }, manifest.name)
  })

  it("core has only the peer dependency effect", () => {
    const { dependencies, optionalDependencies, peerDependencies } = named("@sluice/core").manifest
    assert.deepStrictEqual({ ...dependencies, ...optionalDependencies }, {})
    assert.deepStrictEqual(Object.keys(peerDependencies ?? {}), ["effect"])
  })

  it("no package imports a barrel module", () => {
    const barrel = /\b(?:from|import)\s*\(?\s*["'](?:effect|@effect\/platform-node)["']/
    for (const one of packages) {
      for (const file of one.files.filter((file) => /^(dist\/.+\.(js|d\.ts)|src\/.+\.ts)$/.test(file))) {
        // Examples in comments are for applications, which can import barrels.
        const lines = read(one, file).split("\n").filter((line) => !/^\s*(\*|\/\/)/.test(line))
        assert.deepStrictEqual(lines.filter((line) => barrel.test(line)), [], `${one.manifest.name}/${file}`)
      }
    }
  })
})

describe("a project with the packages", () => {
  const newFolder = (name: string): string => {
    const folder = join(workshop, name)
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
    return folder
  }

  it("a project with core and effect compiles strictly and runs", { timeout: 120_000 }, async () => {
    const folder = newFolder("core alone")
    makeProject(folder, [named("@sluice/core")], ["effect"], {
      "main.ts": `
        import { Effect } from "effect"
        import * as RetryPolicy from "@sluice/core/RetryPolicy"
        import * as Sluice from "@sluice/core/Sluice"

        class Gpt extends Sluice.Service<Gpt>()("app/Gpt", {
          name: "gpt",
          retry: RetryPolicy.exponential({ baseDelay: "1 millis" }),
          breaker: {},
          backpressure: { capacity: 4 }
        }) {}

        let calls = 0
        const ask = Effect.suspend(() => ++calls < 3 ? Effect.fail("503" as const) : Effect.succeed("an answer"))
        const program: Effect.Effect<string, "503" | Sluice.Rejected | Sluice.AttemptTimeout, Gpt> = Gpt.use((gpt) =>
          gpt.protect(ask)
        )
        console.log(await Effect.runPromise(program.pipe(Effect.provide(Gpt.layer))), "after", calls)
      `
    })
    await tsc(["-p", "."], folder)
    assert.strictEqual(await execute(process.execPath, [join("out", "main.js")], folder), "an answer after 3\n")
  })

  it("a project with all packages compiles strictly and runs", { timeout: 120_000 }, async () => {
    const folder = newFolder("all")
    makeProject(folder, packages, ["effect", "@types/node"], {
      "main.ts": `
        import { Effect, Layer } from "effect"
        import { LanguageModel } from "effect/ai"
        import { OpenAiCompatible } from "@sluice/ai"
        import * as HttpTransport from "@sluice/ai/HttpTransport"
        import { LoopbackProvider } from "@sluice/ai/testing"
        import * as Deadline from "@sluice/core/Deadline"
        import * as LocalModel from "@sluice/local-model/LocalModel"
        import * as InterruptionProbe from "@sluice/testing/InterruptionProbe"

        const program = Effect.gen(function*() {
          const { apiKey, url } = yield* LoopbackProvider.LoopbackProvider
          const Model = OpenAiCompatible.layer({ url, apiKey, model: "any" }).pipe(Layer.provide(HttpTransport.layer()))
          const response = yield* LanguageModel.generateText({ prompt: "Good morning" }).pipe(Effect.provide(Model))
          const answer = yield* LocalModel.LocalModel.use((model) => model.answer("Summarise: The lamp is broken."))
          yield* InterruptionProbe.yields(2)
          return [response.text, answer.text]
        }).pipe(
          Deadline.within("20 seconds"),
          Effect.provide([LoopbackProvider.layer(), LocalModel.layer])
        )
        console.log((await Effect.runPromise(program)).join("; "))
      `
    })
    await tsc(["-p", "."], folder)
    const printed = await execute(process.execPath, [join("out", "main.js")], folder)
    assert.match(printed, /^Loopback echo: Good morning; .*lamp is broken/)
  })

  it("every exported module can be imported and has types, and internal modules cannot be imported", {
    timeout: 120_000
  }, async () => {
    const folder = newFolder("every module")
    const specifiers = packages.flatMap(modulesOf)
    assert.includeMembers([...specifiers], ["@sluice/core", "@sluice/core/Sluice", "@sluice/ai/testing/Script"])
    const imports = specifiers.map((specifier, index) => `import * as m${index} from ${JSON.stringify(specifier)}`)
    const used = specifiers.map((_, index) => `m${index}`).join(", ")
    makeProject(folder, packages, ["effect", "@types/node"], {
      "main.ts": `${imports.join("\n")}\nconsole.log([${used}].length)\n`
    })
    await tsc(["-p", "."], folder)
    assert.strictEqual(await execute(process.execPath, [join("out", "main.js")], folder), `${specifiers.length}\n`)

    writeFileSync(join(folder, "hidden.js"), `await import("@sluice/core/internal/options")`)
    const refused = await execute(process.execPath, ["hidden.js"], folder).then(() => "", String)
    assert.include(refused, "ERR_PACKAGE_PATH_NOT_EXPORTED")
  })

  it("the sluice command runs from its tarball", { timeout: 60_000 }, async () => {
    const { folder, manifest } = named("sluice")
    const { bin } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
      readonly bin: { readonly sluice: string }
    }
    assert.strictEqual(manifest.name, "sluice")
    const command = join(folder, bin.sluice)
    const help = await execute(process.execPath, [command, "--help"], dirname(folder))
    assert.include(help, "sluice run")
    // The style of a report is a file of the package.
    const refusing = createServer((_, response) => void response.writeHead(503).end())
    onTestFinished(() => void refusing.close())
    await new Promise<void>((resolve) => refusing.listen(0, "127.0.0.1", resolve))
    // It listens on a port, so its address is no path.
    const { port } = refusing.address() as AddressInfo
    const report = join(dirname(folder), "report.html")
    const prompts = join(dirname(folder), "prompts.jsonl")
    writeFileSync(prompts, `{"prompt":"Hello"}\n`)
    const target = `a=http://127.0.0.1:${port}/v1#m`
    const args = ["-o", "results.jsonl", "--report", report, "--max-attempts", "1", "--target", target]
    await execute(process.execPath, [command, "run", prompts, ...args], dirname(folder)).catch(() => {})
    assert.include(readFileSync(report, "utf8"), "--failed: #b93232")
  })

  it("`sluice serve` answers a call from its tarball, as npx runs it, and ends at SIGTERM", {
    timeout: 120_000
  }, async () => {
    const { folder } = named("sluice")
    const place = newFolder("npx")
    mkdirSync(place)
    // As npx does, with a link and in a folder of the user.
    const command = join(place, "sluice")
    symlinkSync(join(folder, "dist", "bin.js"), command)
    const provider = createServer((request, response) => {
      request.resume()
      response.writeHead(200, { "content-type": "application/json" })
      response.end(`{"choices":[{"index":0,"message":{"content":"fine"},"finish_reason":"stop"}]}`)
    })
    onTestFinished(() => {
      provider.closeAllConnections()
      provider.close()
    })
    await new Promise<void>((resolve) => provider.listen(0, "127.0.0.1", resolve))
    // It listens on a port, so its address is no path.
    const { port } = provider.address() as AddressInfo
    const env = { PATH: process.env["PATH"] ?? "" }
    const gateway = spawn(
      process.execPath,
      [command, "serve", "--port", "0", "--target", `a=http://127.0.0.1:${port}/v1`],
      { cwd: place, env, stdio: ["ignore", "pipe", "inherit"] }
    )
    onTestFinished(() => void gateway.kill("SIGKILL"))
    const ended = new Promise<number | null>((resolve) => gateway.once("close", resolve))
    const [url, token] = await new Promise<readonly [url: string, token: string]>((resolve, reject) => {
      let text = ""
      gateway.stdout.on("data", (data: Buffer) => {
        text += data.toString()
        const [, url, token] = /OPENAI_BASE_URL=(\S+)\/v1 OPENAI_API_KEY=(\S+)/.exec(text) ?? []
        if (url !== undefined && token !== undefined) resolve([url, token])
      })
      void ended.then((code) => reject(new Error(`ended with ${code}`)))
    })
    const ask = (path: string, init?: RequestInit) =>
      fetch(`${url}${path}`, {
        ...init,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        signal: AbortSignal.timeout(20_000)
      })
    const answer = await ask("/v1/chat/completions", {
      method: "POST",
      body: JSON.stringify({ model: "m", messages: [{ role: "user", content: "Hello" }] })
    })
    assert.strictEqual(answer.status, 200)
    assert.include(await answer.text(), "fine")
    const log = await ask(`/sluice/calls/${answer.headers.get("x-sluice-call")}`)
    assert.include(await log.text(), `"answeredBy":"a"`)
    assert.include(await (await ask("/metrics")).text(), "sluice_gateway_requests_total")
    assert.strictEqual((await ask("/health")).status, 200)
    for (const file of ["", "base.css", "page.js", "lib/lit-html.js", "lib/uPlot.esm.js"]) {
      assert.strictEqual((await ask(`/sluice/${file}`)).status, 200, file)
    }
    gateway.kill("SIGTERM")
    assert.strictEqual(await ended, 0)
    assert.match(await execute(process.execPath, [command, "keys", "add", "ann"], place), /^sluice_/)
  })
})
