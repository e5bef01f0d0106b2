const Mark = Symbol("@sluice/ai/GenAiTelemetry")

// A property and not a set of services: a decorator that copies the service keeps it.

/** Marks a service whose calls have telemetry. */
export const mark = <A extends object>(service: A): A => ({ ...service, [Mark]: true })

/** Whether the calls of this service have telemetry, from a layer or a resilient model. */
export const isMarked = (service: object): boolean => Mark in service
