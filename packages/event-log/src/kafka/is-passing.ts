import { kafkajs } from './kafkajs.ts';

/** kafkajs calls these final although a new connection or a little time heals them, e.g. while a broker starts. */
const passingNames = new Set([
  'KafkaJSGroupCoordinatorNotFound',
  'KafkaJSInvariantViolation',
  'KafkaJSLockTimeout',
  'KafkaJSTimeout',
]);
const passingTypes = new Set([
  'BROKER_NOT_AVAILABLE',
  'ILLEGAL_GENERATION',
  'ILLEGAL_SASL_STATE',
  'REBALANCE_IN_PROGRESS',
  'UNKNOWN',
  'UNKNOWN_MEMBER_ID',
]);
/** What kafkajs puts around the error that tells. */
const wrappers = new Set(['KafkaJSNonRetriableError', 'KafkaJSNumberOfRetriesExceeded']);
/** The one plain error that kafkajs throws while a network is broken. */
const notConnected = 'Broker not connected';

/**
 * True where a new connection or a little time may help. False for what a supervisor must hear about: no permission,
 * wrong credentials, a batch that cannot be decoded, a defect.
 */
export function isPassing(error: Error): boolean {
  const root = rootOf(error);
  if (!(root instanceof kafkajs.KafkaJSError)) return root.message === notConnected;
  if (root instanceof kafkajs.KafkaJSProtocolError && passingTypes.has(root.type)) return true;
  return root.retriable || passingNames.has(root.name);
}

function rootOf(error: Error): Error {
  return wrappers.has(error.name) && error.cause instanceof Error ? rootOf(error.cause) : error;
}
