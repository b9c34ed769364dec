import { isDeepStrictEqual } from 'node:util';
import {
  type CloudEvent,
  type CloudEventContext,
  createIdCheck,
  faultsOf,
  firstFaults,
  fromHttpBinary,
  fromStructured,
  maxFaults,
  mediaTypeOf,
  mediaTypes,
  type ProblemFault,
  type RoomEventType,
  readRoomEvent,
} from '@realtime-service/contracts';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { ProblemError } from '../problem.ts';

const maxEvents = 1_000;

/**
 * A well-formed event that this caller may publish; the data as the producer wrote them, fields of newer versions too.
 */
interface ReadEvent {
  readonly context: CloudEventContext;
  readonly data: unknown;
}

/** Facts about facts: operators' tools and the moderation routes append them. */
const operatorsOnly: ReadonlySet<RoomEventType> = new Set<RoomEventType>([
  'participant.kick_requested',
  'track.mute_requested',
  'dead_letter.retried',
  'dead_letter.discarded',
]);
export const publisherScope = 'realtime:publish';
export const operatorScope = 'realtime:ops';

type Reading = { readonly event: ReadEvent } | { readonly faults: readonly ProblemFault[] };

const Batch = z.array(z.unknown()).min(1).max(maxEvents);

const invalid = (faults: readonly ProblemFault[]): ProblemError =>
  new ProblemError('invalid_request', { reason: 'schema', faults });

const readEvent = (open: () => CloudEvent, scopes: ReadonlySet<string>): Reading => {
  let event: CloudEvent;
  try {
    event = open();
  } catch (error) {
    if (!(error instanceof z.ZodError)) throw error;
    return { faults: faultsOf(error) };
  }
  const reading = readRoomEvent(event);
  if (reading.kind === 'unknown_type') return { faults: [{ path: '/type', message: 'must be a known type' }] };
  if (reading.kind === 'invalid') return { faults: reading.faults };
  const scope = operatorsOnly.has(reading.event.type) ? operatorScope : publisherScope;
  if (!scopes.has(scope)) return { faults: [{ path: '/type', message: `needs the scope ${scope}` }] };
  return { event };
};

/** Reads no further than a hundred faults lead: a batch of 1 MiB can have half a million. @throws {ProblemError} */
const readBatch = (elements: readonly unknown[], scopes: ReadonlySet<string>): ReadEvent[] => {
  const events: ReadEvent[] = [];
  const faults: ProblemFault[] = [];
  const faultsOfId = createIdCheck<unknown>(isDeepStrictEqual);
  const repeatFaults = ({ context: { source, id, type, subject }, data }: ReadEvent): readonly ProblemFault[] =>
    faultsOfId(JSON.stringify([source, id]), { type, subject, data });
  for (const [index, element] of elements.entries()) {
    const reading = readEvent(() => fromStructured(element), scopes);
    if ('event' in reading) events.push(reading.event);
    const found = 'event' in reading ? repeatFaults(reading.event) : reading.faults;
    faults.push(...found.map(({ path, message }) => ({ path: `/${index}${path}`, message })));
    if (faults.length > maxFaults) break;
  }
  if (faults.length > 0) throw invalid(firstFaults(faults));
  return events;
};

/** Most often a whole event under the content type of any JSON: its attributes would be called missing. */
const notBinary: ProblemFault = {
  path: '/specversion',
  message: `must be a header, ce-specversion; an event that is all in its body has the content type ${mediaTypes.structured}`,
};

/** Node joins what came twice, others take the first or the last: two rooms' names would be a third one's. */
const repeatedAttributes = (rawHeaders: readonly string[]): ProblemFault[] => {
  const names = rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase());
  const repeated = names.filter((name, at) => name.startsWith('ce-') && names.indexOf(name) < at);
  return [...new Set(repeated)].map((name) => ({
    path: `/${name.slice('ce-'.length)}`,
    message: 'must be there once',
  }));
};

interface EventsRequest extends Pick<FastifyRequest, 'body' | 'headers'> {
  readonly raw: Pick<FastifyRequest['raw'], 'rawHeaders'>;
}

/**
 * The events of a request in any of the three modes of the CloudEvents HTTP binding, all of them good.
 * @throws {ProblemError} 422 naming the first hundred faults, in a batch by the event's index
 */
export const readEvents = ({ body, headers, raw }: EventsRequest, scopes: ReadonlySet<string>): ReadEvent[] => {
  const mediaType = mediaTypeOf(headers['content-type']);
  if (mediaType !== mediaTypes.batch) {
    const isStructured = mediaType === mediaTypes.structured;
    if (!isStructured && headers['ce-specversion'] === undefined) throw invalid([notBinary]);
    const repeated = isStructured ? [] : repeatedAttributes(raw.rawHeaders);
    if (repeated.length > 0) throw invalid(repeated);
    const reading = readEvent(() => (isStructured ? fromStructured(body) : fromHttpBinary(headers, body)), scopes);
    if ('faults' in reading) throw invalid(reading.faults);
    return [reading.event];
  }
  const batch = Batch.safeParse(body);
  if (!batch.success) throw invalid(faultsOf(batch.error));
  return readBatch(batch.data, scopes);
};
