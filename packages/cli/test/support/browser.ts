import { Effect } from "effect"
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"

const program = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) =>
  existsSync(path)
)

export const hasBrowser = program !== undefined

export interface Tab {
  readonly open: (url: string) => Promise<void>
  readonly evaluate: (expression: string) => Promise<unknown>
  readonly resize: (width: number, height: number) => Promise<void>
  readonly colours: (scheme: "light" | "dark") => Promise<void>
  readonly screenshot: () => Promise<Buffer>
  /** Errors, and messages of the console and of the browser about the page. */
  readonly messages: ReadonlyArray<string>
}

type Fields = { readonly [field: string]: unknown }

/** A tab of a new Chromium with a profile in the folder. It is closed with the scope. */
export const tab = (directory: string) =>
  Effect.acquireRelease(
    Effect.promise(() => start(directory)),
    ({ process }) => Effect.promise(() => stop(process))
  )

const stop = (process: ReturnType<typeof launch>) =>
  new Promise<void>((resolve) => {
    process.once("exit", () => resolve())
    process.kill("SIGKILL")
  })

const launch = (directory: string) =>
  spawn(program ?? "chromium", [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
    `--user-data-dir=${directory}`,
    "about:blank"
  ], { stdio: ["ignore", "ignore", "pipe"] })

const start = async (directory: string): Promise<Tab & { readonly process: ReturnType<typeof launch> }> => {
  const process = launch(directory)
  const browser = await new Promise<URL>((resolve, reject) => {
    let said = ""
    process.stderr.on("data", (data: Buffer) => {
      said += data.toString()
      const [, url] = /DevTools listening on (ws:\S+)/.exec(said) ?? []
      if (url !== undefined) resolve(new URL(url))
    })
    process.once("exit", () => reject(new Error(said)))
  })
  const pages = JSON.parse(await (await fetch(`http://${browser.host}/json/list`)).text()) as ReadonlyArray<Fields>
  const socket = new WebSocket(String(pages.find(({ type }) => type === "page")?.["webSocketDebuggerUrl"]))
  await new Promise((resolve) => socket.addEventListener("open", resolve))
  const waiting = new Map<number, (answer: Fields) => void>()
  const messages: Array<string> = []
  let last = 0
  socket.addEventListener("message", ({ data }) => {
    const message = JSON.parse(String(data))
    waiting.get(message.id)?.(message)
    if (message.method === "Runtime.exceptionThrown") messages.push(JSON.stringify(message.params.exceptionDetails))
    if (message.method === "Runtime.consoleAPICalled") messages.push(JSON.stringify(message.params.args))
    if (message.method === "Log.entryAdded") messages.push(JSON.stringify(message.params.entry))
  })
  const send = (method: string, params: Fields = {}): Promise<Fields> =>
    new Promise((resolve, reject) => {
      const id = ++last
      waiting.set(id, ({ error, result }) => {
        waiting.delete(id)
        // Its protocol has an object there.
        if (error === undefined) resolve(result as Fields)
        else reject(new Error(`${method}: ${JSON.stringify(error)}`))
      })
      socket.send(JSON.stringify({ id, method, params }))
    })
  for (const domain of ["Page", "Runtime", "Log"]) await send(`${domain}.enable`)
  return {
    process,
    messages,
    open: async (url) => void (await send("Page.navigate", { url })),
    evaluate: async (expression) => {
      const { result } = await send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true })
      return (result as Fields)["value"]
    },
    resize: async (width, height) =>
      void (await send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false })),
    colours: async (value) =>
      void (await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] })),
    screenshot: async () => Buffer.from(String((await send("Page.captureScreenshot"))["data"]), "base64")
  }
}
