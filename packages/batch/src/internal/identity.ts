/** A name that no other process has. */
import { randomBytes } from "node:crypto"
import { hostname } from "node:os"

export const identity = (): string => `${hostname()}/${process.pid}/${randomBytes(4).toString("hex")}`
