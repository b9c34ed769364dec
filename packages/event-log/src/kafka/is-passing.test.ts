import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { UndecodableBatchError } from './codecs.ts';
import { isPassing } from './is-passing.ts';

const require = createRequire(import.meta.url);
const { createErrorFromCode, errorCodes } = require('kafkajs/src/protocol/error.js');
const errors = require('kafkajs/src/errors.js');

const protocolError = (type: string): Error =>
  createErrorFromCode(errorCodes.find((error: { type: string }) => error.type === type).code);
const wrapped = (cause: Error): Error => new errors.KafkaJSNonRetriableError(cause, { cause });

describe('isPassing', () => {
  it.each<[string, Error]>([
    ['a connection that broke', new errors.KafkaJSConnectionError('Connection error: ECONNREFUSED')],
    ['a request without an answer', new errors.KafkaJSRequestTimeoutError('Request Fetch timed out')],
    [
      'retries that ran out over one',
      new errors.KafkaJSNumberOfRetriesExceeded(protocolError('LEADER_NOT_AVAILABLE'), {}),
    ],
    ['a coordinator that is not there yet', new errors.KafkaJSGroupCoordinatorNotFound('Failed to find')],
    ['a membership that is over', wrapped(protocolError('UNKNOWN_MEMBER_ID'))],
    ['a topic that is not there yet', protocolError('UNKNOWN_TOPIC_OR_PARTITION')],
    ['an authentication that was interrupted', protocolError('ILLEGAL_SASL_STATE')],
    ['a broker that is not there yet', protocolError('BROKER_NOT_AVAILABLE')],
    ['an error that the broker cannot name', protocolError('UNKNOWN')],
    ['a generation that is over', protocolError('ILLEGAL_GENERATION')],
    ['a rebalance', protocolError('REBALANCE_IN_PROGRESS')],
    ['a connection that others wait for, too', new errors.KafkaJSLockTimeout('Timeout while acquiring lock')],
    ['an answer that came too late', new errors.KafkaJSTimeout('Timeout')],
    ['an answer that nobody waits for', new errors.KafkaJSInvariantViolation('Response without match')],
    ['a broker object without a connection', new Error('Broker not connected')],
  ])('is true for %s', (_, error) => {
    expect(isPassing(error)).toBe(true);
  });

  it.each<[string, Error]>([
    ['a missing permission', protocolError('TOPIC_AUTHORIZATION_FAILED')],
    ['wrong credentials', new errors.KafkaJSSASLAuthenticationError('SASL PLAIN authentication failed')],
    ['an unknown codec', wrapped(new errors.KafkaJSNotImplemented('ZSTD compression not implemented'))],
    ['a batch that cannot be unpacked', wrapped(new Error('Data corruption detected'))],
    [
      'one whose cause would pass alone',
      wrapped(new UndecodableBatchError('x', { cause: new errors.KafkaJSConnectionError('ECONNREFUSED') })),
    ],
    ['a defect', wrapped(new TypeError('x is not a function'))],
  ])('is false for %s', (_, error) => {
    expect(isPassing(error)).toBe(false);
  });
});
