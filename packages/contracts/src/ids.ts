import { z } from 'zod';

const utf8 = new TextEncoder();
/** Of one UTF-16 code unit; a pair of surrogates has four. */
const maxBytesPerUnit = 3;

/** Short texts, as nearly all are, fit whatever they say: counting bytes was a tenth of the cost of a record. */
const fits = (text: string, maxBytes: number): boolean =>
  text.length * maxBytesPerUnit <= maxBytes || utf8.encode(text).length <= maxBytes;

/** Text that PostgreSQL, Kafka and LiveKit can all hold: well-formed Unicode without NUL, measured in UTF-8 bytes. */
export const boundedText = (maxBytes: number) =>
  z
    .string()
    .max(maxBytes)
    .refine((text) => text.isWellFormed() && !text.includes('\0'), 'must be well-formed Unicode without NUL')
    .refine((text) => fits(text, maxBytes), `must be at most ${maxBytes} bytes of UTF-8`);

/** Opaque and used byte for byte: two spellings of one name are two ids. LiveKit bounds room names by bytes. */
export const RoomId = boundedText(256)
  .min(1)
  .meta({ id: 'RoomId', description: 'Opaque room id, 1–256 bytes of UTF-8, compared byte for byte.' });
export type RoomId = z.infer<typeof RoomId>;

/** The token's `sub`. Shorter than a room id, so that `user:device` still fits an identity of 256 bytes. */
export const UserId = boundedText(191)
  .min(1)
  .meta({ id: 'UserId', description: 'Opaque user id (`sub`), 1–191 bytes of UTF-8, compared byte for byte.' });
export type UserId = z.infer<typeof UserId>;

/** One login of a person at the identity provider (Keycloak's `sid`). */
export const LoginId = boundedText(255).min(1);

/** When a login ends by policy, seconds since the epoch, as an attribute of a LiveKit token says it. */
export const LoginEnd = z.string().regex(/^\d{1,12}$/);

export const DeviceId = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,64}$/)
  .meta({ id: 'DeviceId', description: 'A device of a person, chosen by the client.' });
export type DeviceId = z.infer<typeof DeviceId>;

/** Who somebody is in LiveKit: a person's device, as the desk has named it. Nothing parses it. */
export const Identity = boundedText(256)
  .min(1)
  .meta({ id: 'Identity', description: 'Identity of a participant in LiveKit, opaque, 1–256 bytes of UTF-8.' });
export type Identity = z.infer<typeof Identity>;

/** Of a participant or a track, as LiveKit names them. */
export const Sid = boundedText(128)
  .min(1)
  .meta({ id: 'Sid', description: 'What LiveKit calls a participant, a track or a room: one stay, never used again.' });
export type Sid = z.infer<typeof Sid>;

/** The edges of what PostgreSQL and `toISOString` can both write, milliseconds since the epoch. */
export const firstInstantMs = Date.parse('0001-01-01T00:00:00Z');
export const lastInstantMs = Date.parse('9999-12-31T23:59:59.999Z');

const isWithinYears1To9999 = (text: string): boolean => {
  const instantMs = Date.parse(text);
  return instantMs >= firstInstantMs && instantMs <= lastInstantMs;
};

/** RFC 3339 with an offset or `Z`; impossible dates, zone names and local times are refused. */
export const Timestamp = z.iso
  .datetime({ offset: true })
  .max(64)
  .refine(isWithinYears1To9999, 'must lie within the years 1 to 9999')
  .meta({ id: 'Timestamp', description: 'RFC 3339 date-time with offset, within the years 1 to 9999.' });
export type Timestamp = z.infer<typeof Timestamp>;

export const Reason = boundedText(512).meta({ id: 'Reason', description: 'Free text for people, at most 512 bytes.' });
export type Reason = z.infer<typeof Reason>;
