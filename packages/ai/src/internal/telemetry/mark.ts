const Mark = Symbol("@sluice/ai/GenAiTelemetry")

// A property and not a set of services, so that a decorator in between, which copies the service, keeps it.

/** Says of a service that its calls are seen already. */
export const mark = <A extends object>(service: A): A => ({ ...service, [Mark]: true })

/** Whether the calls of this service are seen already, by a layer or by a resilient model. */
export const isMarked = (service: object): boolean => Mark in service
