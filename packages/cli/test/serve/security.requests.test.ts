import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { connect } from "node:net"
import { folder } from "../support/files.ts"
import { addKey, ask, type Gateway, keys, over, send, sendRaw, start } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"
import { until, within } from "../support/witness.ts"

const open = Effect.gen(function*() {
  const provider = yield* LoopbackProvider.make({})
  const { args, env } = over(provider)
  return { provider, gateway: yield* start(yield* folder, args, env) }
})

const body = `{"model":"m","messages":[{"role":"user","content":"Hello"}]}`

const closing = "Connection: close\r\n"

/** A request with the token of the gateway. By default its connection closes after the response. */
const requestOf = (
  { token }: Gateway,
  { headers = closing, host = "Host: localhost\r\n", method = "GET", target = "/health", version = "1.1" }
) => `${method} ${target} HTTP/${version}\r\n${host}Authorization: Bearer ${token}\r\n${headers}\r\n`

/** A call whose body has these headers and bytes. */
const callOf = (gateway: Gateway, headers: string, sent = body) =>
  requestOf(gateway, {
    method: "POST",
    target: "/v1/chat/completions",
    headers: `Content-Type: application/json\r\n${headers}`
  }) + sent

const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1] ?? 0)

/** A request that must not be answered as one of its own. Its answer has the metrics. */
const smuggled = (gateway: Gateway) => requestOf(gateway, { target: "/metrics" })

const raw = (gateway: Gateway, text: string) => within("an answer", sendRaw(gateway, text))

describe("requests to sluice serve with two readings", { timeout: processTimeout }, () => {
  it.live("each is refused, reaches no provider, and smuggles no request", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* open
      const { length } = body
      const heads: ReadonlyArray<string> = [
        `Content-Length: ${length}\r\nTransfer-Encoding: chunked\r\n`,
        `Transfer-Encoding: chunked\r\nContent-Length: ${length}\r\n`,
        `Content-Length: ${length}\r\nContent-Length: 0\r\n`,
        `Content-Length: ${length}\r\nContent-Length: ${length}\r\n`,
        `Content-Length: ${length}, ${length}\r\n`,
        `Content-Length: +${length}\r\n`,
        `Content-Length: 0x${length.toString(16)}\r\n`,
        `Content-Length: ${length} 0\r\n`,
        `Content-Length: ${length}.0\r\n`,
        "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length:\r\n",
        `Content-Length : ${length}\r\n`,
        `Content-Length\t: ${length}\r\n`,
        `Content-Length: ${length}\r\n x: y\r\n`,
        `X: y\r\n Content-Length: ${length}\r\n`,
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: \vchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        `Content-Length: ${length}\nTransfer-Encoding: chunked\r\n`,
        `Content-Length: ${length}\rX: y\r\n`,
        `X\0: y\r\nContent-Length: ${length}\r\n`,
        `X: a\0b\r\nContent-Length: ${length}\r\n`,
        `X y: z\r\nContent-Length: ${length}\r\n`,
        `: z\r\nContent-Length: ${length}\r\n`,
        `Host: attacker.example\r\nContent-Length: ${length}\r\n`,
        `Host: localhost\r\nContent-Length: ${length}\r\n`,
        `X: ${"x".repeat(20_000)}\r\nContent-Length: ${length}\r\n`,
        `${"X: y\r\n".repeat(3_000)}Content-Length: ${length}\r\n`
      ]
      const accepted: Array<string> = []
      // Two requests, of which both are answered.
      const both = yield* raw(gateway, callOf(gateway, `Content-Length: ${length}\r\n`) + smuggled(gateway))
      assert.match(both, /^HTTP\/1\.1 200 /)
      assert.include(both, "sluice_gateway")
      for (const head of heads) {
        const answer = yield* raw(gateway, callOf(gateway, head) + smuggled(gateway))
        const status = statusOf(answer)
        if (![400, 413, 431].includes(status)) accepted.push(`${status} ${JSON.stringify(head.slice(0, 80))}`)
        if (answer.includes("sluice_gateway")) accepted.push(`smuggled ${JSON.stringify(head)}`)
      }
      assert.deepStrictEqual(accepted, [])
      assert.lengthOf(yield* provider.journal, 1)
      assert.strictEqual((yield* ask(gateway, gateway.token)).status, 200)
    }))

  it.live("chunks are read as one body, and malformed or endless ones are refused", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* open
      const size = body.length.toString(16)
      const chunked = (sent: string, more = "") =>
        raw(gateway, callOf(gateway, `${more}Transfer-Encoding: chunked\r\n`, sent))
      const whole: ReadonlyArray<string> = [
        `${size}\r\n${body}\r\n0\r\n\r\n`,
        `000${size.toUpperCase()}\r\n${body}\r\n0\r\n\r\n`,
        `${size};name=value;other="a b"\r\n${body}\r\n0\r\n\r\n`,
        `1\r\n{\r\n${(body.length - 1).toString(16)}\r\n${body.slice(1)}\r\n0\r\n\r\n`,
        `${size}\r\n${body}\r\n0\r\nAuthorization: Bearer other\r\nX: y\r\n\r\n`
      ]
      for (const sent of whole) assert.strictEqual(statusOf(yield* chunked(sent, closing)), 200, sent)
      assert.lengthOf(yield* provider.journal, whole.length)
      const wrong: ReadonlyArray<string> = [
        `-1\r\n${body}\r\n0\r\n\r\n`,
        `0x${size}\r\n${body}\r\n0\r\n\r\n`,
        `${size}\r\n${body}0\r\n\r\n`,
        `${size} \r\n${body}\r\n0\r\n\r\n`,
        `${size}\n${body}\r\n0\r\n\r\n`,
        `fffffffffffffffff\r\n${body}\r\n0\r\n\r\n`,
        `${size};${"x".repeat(20_000)}\r\n${body}\r\n0\r\n\r\n`,
        `${size};\0\r\n${body}\r\n0\r\n\r\n`,
        `${size}\r\n${body}\r\n0\r\nContent-Length: 1\r\n\r\n`,
        `${size}\r\n${body}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n`,
        "1;name=value\r\n{\r\n".repeat(4_000)
      ]
      const accepted: Array<string> = []
      for (const sent of wrong) {
        const answer = yield* chunked(sent + smuggled(gateway))
        const status = statusOf(answer)
        if (![400, 413].includes(status) || answer.includes("sluice_gateway")) {
          accepted.push(`${status} ${JSON.stringify(sent.slice(0, 60))}`)
        }
      }
      assert.deepStrictEqual(accepted, [])
      assert.lengthOf(yield* provider.journal, whole.length)
      // Its credentials come too late.
      const late = yield* raw(
        gateway,
        `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n` +
          `Transfer-Encoding: chunked\r\n\r\n${size}\r\n${body}\r\n0\r\nAuthorization: Bearer ${gateway.token}\r\n\r\n`
      )
      assert.strictEqual(statusOf(late), 401)
    }))

  it.live("a chunked body above 32 MiB is refused before its end, and a client that still sends gets its refusal", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* open
      const flood = (head: string) =>
        within(
          "a refusal",
          Effect.callback<{ readonly sent: number; readonly text: string }>((resume) => {
            const chunk = `100000\r\n${"x".repeat(0x100000)}\r\n`
            let sent = 0
            let text = ""
            const socket = connect(gateway.port, "127.0.0.1")
            const more = () => {
              while (sent < 200 && !socket.destroyed) {
                sent++
                if (!socket.write(chunk)) return
              }
            }
            socket.on("data", (data) => text += data.toString())
            socket.on("error", () => {})
            socket.on("close", () => resume(Effect.succeed({ sent, text })))
            socket.on("drain", more)
            socket.write(head)
            more()
            return Effect.sync(() => socket.destroy())
          }),
          "30 seconds"
        )
      const head = callOf(gateway, "Transfer-Encoding: chunked\r\n", "")
      const refused = yield* flood(head)
      assert.match(refused.text, /^HTTP\/1\.1 413 /)
      assert.isBelow(refused.sent, 100)
      const unknown = yield* flood(head.replace(gateway.token, "x"))
      assert.match(unknown.text, /^HTTP\/1\.1 401 /)
      assert.isBelow(unknown.sent, 100)
      // A client that sends all before it reads.
      for (
        const [token, type, status] of [["x", "application/json", 401], [gateway.token, "text/plain", 415]] as const
      ) {
        const headers = { authorization: `Bearer ${token}`, "content-type": type }
        const answer = send(gateway, "/v1/chat/completions", { headers, body: "x".repeat(20_000_000) })
        assert.strictEqual((yield* within("an answer", answer)).status, status)
      }
      assert.lengthOf(yield* provider.journal, 0)
    }))

  it.live("methods, targets and protocols that are for proxies and others get no answer but a refusal", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* open
      const cases: ReadonlyArray<readonly [sent: string, status: number]> = [
        [requestOf(gateway, { method: "TRACE" }), 405],
        [requestOf(gateway, { method: "OPTIONS", target: "*" }), 400],
        [requestOf(gateway, { method: "PROPFIND" }), 405],
        [requestOf(gateway, { method: "get" }), 400],
        [requestOf(gateway, { method: "CONNECT", target: "169.254.169.254:80" }), 0],
        [requestOf(gateway, { target: "http://localhost/health" }), 400],
        [requestOf(gateway, { target: "http://169.254.169.254/latest/meta-data" }), 400],
        [requestOf(gateway, { target: "https://attacker.example/v1/models" }), 400],
        [requestOf(gateway, { target: "//attacker.example/v1/models" }), 400],
        [requestOf(gateway, { target: "attacker.example:80" }), 400],
        [requestOf(gateway, { target: "file:///etc/passwd" }), 400],
        [requestOf(gateway, { target: "/health x" }), 400],
        [requestOf(gateway, { target: "/v1/mod\u0001els" }), 400],
        [requestOf(gateway, { target: `/${"x".repeat(20_000)}` }), 431],
        [requestOf(gateway, { version: "1.2" }), 400],
        ["GET /health\r\n\r\n", 403],
        ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400],
        ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400],
        ["\0\0\0\0\r\n\r\n", 400]
      ]
      const wrong: Array<string> = []
      for (const [sent, status] of cases) {
        const answer = yield* raw(gateway, sent)
        if (statusOf(answer) !== status) {
          wrong.push(`${statusOf(answer)}, not ${status}: ${JSON.stringify(sent.slice(0, 60))}`)
        }
        assert.notInclude(answer, gateway.token)
      }
      assert.deepStrictEqual(wrong, [])
      assert.lengthOf(yield* provider.journal, 0)
      assert.strictEqual(statusOf(yield* raw(gateway, requestOf(gateway, {}))), 200)
    }))

  it.live("hosts that are no address, no localhost and not allowed are refused, however they are written", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* open
      const statusFor = (host: string) =>
        Effect.map(raw(gateway, requestOf(gateway, { host, target: "/v1/models" })), statusOf)
      const refused = [
        "",
        "Host:\r\n",
        "Host: attacker.example\r\n",
        "Host: attacker.example:4000\r\n",
        "Host: localhost.attacker.example\r\n",
        "Host: 127.0.0.1.attacker.example\r\n",
        "Host: localhost@attacker.example\r\n",
        "Host: attacker.example#localhost\r\n",
        "Host: localhost/\r\n",
        "Host: localhost attacker.example\r\n",
        "Host: localhost,attacker.example\r\n",
        "Host: localhost:999999\r\n",
        "Host: localhost:x\r\n",
        "Host: 127.1\r\n",
        "Host: 2130706433\r\n",
        "Host: 0x7f000001\r\n",
        "Host: 0177.0.0.1\r\n",
        "Host: [::1\r\n",
        "Host: localhost\r\nHost: attacker.example\r\n",
        "Host: attacker.example\r\nHost: localhost\r\n",
        "Host: attacker.example\r\nX-Forwarded-Host: localhost\r\nForwarded: host=localhost\r\n"
      ]
      const accepted: Array<string> = []
      for (const host of refused) {
        const status = yield* statusFor(host)
        if (status !== 400 && status !== 403) accepted.push(`${status} ${JSON.stringify(host)}`)
      }
      assert.deepStrictEqual(accepted, [])
      assert.lengthOf(yield* provider.journal, 0)
      for (const host of ["LOCALHOST", "127.0.0.1:80", "[::1]:4000", "192.0.2.7"]) {
        assert.strictEqual(yield* statusFor(`Host: ${host}\r\n`), 200, host)
      }
    }))
})

describe("paths of sluice serve", { timeout: processTimeout }, () => {
  it.live("no path leads to a file that is not of the page", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* open
      const up = [
        "..",
        "%2e%2e",
        ".%2e",
        "%2E%2E",
        "%252e%252e",
        "%c0%ae%c0%ae",
        "..;",
        "...",
        "%u002e%u002e",
        "..\\..",
        "%uff0e%uff0e"
      ]
      const slash = ["/", "%2f", "%2F", "%252f", "\\", "%5c", "%255c", "//", "%c0%af", "%ef%bc%8f"]
      const files = ["package.json", "src/bin.ts", "etc/passwd"]
      const paths = [
        ...up.flatMap((up) =>
          slash.flatMap((slash) => files.map((file) => `/sluice/${up}${slash}${up}${slash}${up}${slash}${file}`))
        ),
        ...up.flatMap((up) => slash.map((slash) => `/sluice/lib${slash}${up}${slash}page.js`)),
        "/sluice/page.js%00",
        "/sluice/page.js%00.css",
        "/sluice/%00",
        "/sluice/page.js/",
        "/sluice/page.js%20",
        "/sluice/page.js.",
        "/sluice/PAGE.JS",
        "/sluice/page.js::$DATA",
        "/sluice/./page.js",
        "/sluice//page.js",
        "/sluice/lib",
        "/sluice/lib/",
        "/sluice/lib/constructor",
        "/sluice/__proto__",
        "/sluice/toString",
        "/sluice/file:///etc/passwd",
        "/sluice/%66ile:///etc/passwd",
        "/page/index.html",
        "/sluice/index.html",
        "/sluice-keys.sqlite",
        "/sluice/sluice-keys.sqlite",
        "/sluice.json"
      ]
      const wrong: Array<string> = []
      yield* Effect.forEach(paths, (path) =>
        Effect.map(raw(gateway, requestOf(gateway, { target: path })), (answer) => {
          const status = statusOf(answer)
          const isRefused = status === 400 || status === 404
          if (!isRefused || /root:|"name"|import /.test(answer)) wrong.push(`${status} ${path}`)
        }), { concurrency: 8, discard: true })
      assert.deepStrictEqual(wrong, [])
      assert.lengthOf(yield* provider.journal, 0)
      // A query is no part of the path.
      assert.strictEqual((yield* send(gateway, "/sluice/page.js?../../package.json")).status, 200)
    }))
})

describe("guesses of tokens of sluice serve", { timeout: processTimeout }, () => {
  it.live("the answer to a wrong token is the same for unknown, removed, similar, short and long ones", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      const { args, env } = over(provider)
      const directory = yield* folder
      const token = yield* addKey(directory, "ann", "--rpm", "1000")
      const removed = yield* addKey(directory, "bob")
      yield* keys(directory, "remove", "bob")
      const gateway = yield* start(directory, args, env)
      const other = token.endsWith("A") ? "B" : "A"
      const secret = token.slice(-43)
      const guesses = [
        "",
        "x",
        "ann",
        "sluice_",
        removed,
        token.slice(0, -1),
        `${token.slice(0, -1)}${other}`,
        `${token}${other}`,
        `${token} `.repeat(2),
        token.toUpperCase(),
        token.replace(/_[0-9a-f]{12}_/, "_000000000000_"),
        `sluice_${secret}`,
        secret,
        `${token},${token}`,
        "x".repeat(12_000),
        "\u00e9".repeat(43),
        "' OR 1=1 --",
        "__proto__"
      ]
      const ways: ReadonlyArray<(guess: string) => { readonly [name: string]: string }> = [
        (guess) => ({ authorization: `Bearer ${guess}` }),
        (guess) => ({ "x-api-key": guess }),
        (guess) => ({ "api-key": guess }),
        (guess) => ({ authorization: guess }),
        (guess) => ({ authorization: `Basic ${Buffer.from(`ann:${guess}`).toString("base64")}` }),
        (guess) => ({ cookie: `sluice-${gateway.port}=${guess}` }),
        (guess) => ({ "proxy-authorization": `Bearer ${guess}` })
      ]
      for (
        const [path, method] of [["/v1/chat/completions", "POST"], ["/metrics", "GET"], [
          "/sluice/calls/x",
          "GET"
        ]] as const
      ) {
        const answers = new Set<string>()
        for (const guess of guesses) {
          for (const way of ways) {
            const headers = {
              "content-type": "application/json",
              ...way(encodeURI(guess) === guess ? guess : "\u00e9")
            }
            const sent = method === "POST" ? { method, headers, body } : { method, headers }
            const { headers: { date: _, ...got }, status, text } = yield* send(gateway, path, sent)
            answers.add(JSON.stringify([status, got, text]))
          }
        }
        assert.lengthOf([...answers], 1, [...answers].join("\n"))
        assert.match([...answers][0] ?? "", /^\[401,/)
      }
      assert.lengthOf(yield* provider.journal, 0)
      yield* until("the right one is accepted", Effect.map(ask(gateway, token), ({ status }) => status === 200))
    }))
})
