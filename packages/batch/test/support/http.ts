/**
 * As little of HTTP/1.1 as a provider and its callers need. A call costs a third of what it does with `node:http`, so a million of them end
 * in minutes.
 */
import { connect, createServer, type Server, type Socket } from "node:net"

export interface Call {
  readonly key: string
  readonly worker: string
  /** Answers it. Does nothing if its caller is gone. */
  readonly answer: (status: number, text: string) => void
}

const headEnd = "\r\n\r\n"

/** Calls `onMessage` for each message with a head and a body. */
const read = (socket: Socket, onMessage: (head: string, body: string) => void): void => {
  let rest = ""
  socket.setNoDelay(true).setEncoding("utf8").on("data", (part: string) => {
    rest += part
    while (true) {
      const end = rest.indexOf(headEnd)
      if (end < 0) return
      const head = rest.slice(0, end)
      const next = end + headEnd.length + Number(fieldOf(head, "content-length"))
      if (rest.length < next) return
      const body = rest.slice(end + headEnd.length, next)
      rest = rest.slice(next)
      onMessage(head, body)
    }
  })
}

const fieldOf = (head: string, name: string): string => {
  const start = head.indexOf(`\r\n${name}: `) + name.length + 4
  const end = head.indexOf("\r\n", start)
  return head.slice(start, end < 0 ? undefined : end)
}

export const serve = (onCall: (call: Call) => void): Server =>
  createServer((socket) => {
    socket.on("error", () => socket.destroy())
    read(socket, (head) =>
      onCall({
        key: fieldOf(head, "idempotency-key"),
        worker: fieldOf(head, "x-worker"),
        answer: (status, text) => {
          if (socket.writable) socket.write(`HTTP/1.1 ${status} \r\ncontent-length: ${text.length}${headEnd}${text}`)
        }
      }))
  })

interface Waiting {
  readonly resolve: (text: string) => void
  readonly reject: (error: Error) => void
}

/** Posts to one address. Texts are ASCII. Fails unless the status is 200. */
export const poster = (url: string, worker: string): (body: string, key: string) => Promise<string> => {
  const port = Number(new URL(url).port)
  const idle: Array<{ readonly socket: Socket; wait: (waiting: Waiting) => void }> = []
  const open = () => {
    let waiting: Waiting | undefined
    const socket = connect(port, "127.0.0.1")
    const line = {
      socket,
      wait: (next: Waiting) => {
        waiting = next
      }
    }
    const settle = (use: (waiting: Waiting) => void) => {
      const settled = waiting
      waiting = undefined
      if (settled !== undefined) use(settled)
    }
    const fail = (error: Error) => {
      socket.destroy()
      settle(({ reject }) => reject(error))
    }
    read(socket, (head, text) => {
      idle.push(line)
      settle(({ reject, resolve }) => head.startsWith("HTTP/1.1 200") ? resolve(text) : reject(new Error(text)))
    })
    socket.on("error", fail).on("close", () => fail(new Error("The provider closed the connection")))
    return line
  }
  return (body, key) =>
    new Promise((resolve, reject) => {
      let line = idle.pop()
      while (line?.socket.destroyed === true) line = idle.pop()
      line ??= open()
      line.wait({ resolve, reject })
      line.socket.write(
        `POST / HTTP/1.1\r\nidempotency-key: ${key}\r\nx-worker: ${worker}\r\ncontent-length: ${body.length}${headEnd}${body}`
      )
    })
}
