import { keepsTheContract } from "./support/contract.ts"
import { describeWithRedis } from "./support/redis.ts"

await describeWithRedis("the contract of circuit breaker stores, kept on Redis", keepsTheContract)
