// The part of opossum that is used here. Version 10 has no types.
declare module "opossum" {
  export default class CircuitBreaker<A> {
    constructor(action: () => A | Promise<A>, options: {
      readonly timeout: number | false
      readonly errorThresholdPercentage?: number
      readonly resetTimeout?: number
    })
    fire(): Promise<A>
    /** Stops its timers. */
    shutdown(): void
  }
}
