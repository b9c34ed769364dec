import { DeviceId, LoginEnd, LoginId, UserId } from '@realtime-service/contracts';
import { attributes, isIdentityOf, loginEndOf } from '@realtime-service/room-model';
import { z } from 'zod';
import { ProblemError } from '../problem.ts';
import { unfitOf } from '../unfit.ts';
import type { LivekitClaims } from './verify-livekit-token.ts';

/** Who stands at LiveKit's door, as a signed token says: a person whom the desk let in, or a machine. */
export interface Visitor {
  readonly roomId: string;
  /** Null for a machine (an agent, a recorder), whose token others signed with one of our keys. */
  readonly person: Person | null;
  readonly claims: LivekitClaims;
  /** As it was shown. */
  readonly token: string;
}

/** The attributes that the desk signs. LiveKit copies them into its refresh tokens. */
const Person = z
  .object({
    [attributes.user]: UserId,
    [attributes.device]: DeviceId.optional(),
    [attributes.login]: LoginId.optional(),
    [attributes.loginEnd]: LoginEnd.optional(),
  })
  .transform((signed) => ({
    userId: signed[attributes.user],
    deviceId: signed[attributes.device] ?? null,
    loginId: signed[attributes.login] ?? null,
    loginEndsAtMs: loginEndOf({ attributes: signed }),
  }));
type Person = z.infer<typeof Person>;

/**
 * @throws {ProblemError} 403 where the token names neither a person nor a machine of these kinds, or a person whose
 * identity this is not
 */
export const readVisitor = (token: string, claims: LivekitClaims, machineKinds: readonly string[]): Visitor => {
  const { video, kind } = claims;
  const visitor = { roomId: video.room, claims, token };
  const isMachine = claims.attributes[attributes.user] === undefined && machineKinds.includes(kind);
  if (isMachine) return { ...visitor, person: null };
  const person = Person.safeParse(claims.attributes);
  if (!person.success)
    throw new ProblemError('forbidden', { reason: 'nobody', unfit: unfitOf(person.error), cause: person.error });
  if (!isIdentityOf(claims.sub, person.data)) throw new ProblemError('forbidden', { reason: 'nobody', unfit: ['sub'] });
  return { ...visitor, person: person.data };
};
