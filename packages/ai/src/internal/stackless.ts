// V8's own property; this package is compiled without the types of a runtime.
const V8Error = Error as ErrorConstructor & { stackTraceLimit?: number }

/** A refusal is an answer, not a fault: nobody debugs it by its stack, which would cost 13 us of the 15 that it takes. */
export const stackless = <A>(construct: () => A): A => {
  const limit = V8Error.stackTraceLimit
  V8Error.stackTraceLimit = 0
  try {
    return construct()
  } finally {
    if (limit !== undefined) V8Error.stackTraceLimit = limit
  }
}
