import { DeviceId, LoginEnd, LoginId, Traceparent, UserId } from '@realtime-service/contracts';

/** Names of our own signed attributes in a LiveKit token. */
export const attributes = {
  user: 'rt.user',
  device: 'rt.device',
  login: 'rt.login',
  /** When that login ends by policy, seconds since the epoch. */
  loginEnd: 'rt.login_end',
  trace: 'rt.trace',
} as const;

interface Signed {
  readonly attributes?: Readonly<Record<string, string | undefined>> | undefined;
}

const signedAs = (id: typeof UserId, { attributes: signed }: Signed, name: string): string | null => {
  const value = signed?.[name];
  return value === undefined ? null : (id.safeParse(value).data ?? null);
};

/** Whom our signed attributes name. */
export const signedUserOf = (participant: Signed): string | null => signedAs(UserId, participant, attributes.user);

/** When that person's login ends by policy, milliseconds since the epoch. */
export const loginEndOf = (participant: Signed): number | null => {
  const seconds = signedAs(LoginEnd, participant, attributes.loginEnd);
  return seconds === null ? null : Number(seconds) * 1000;
};

/**
 * What our signed attributes say. Whoever has a key of LiveKit's may sign others under the same names: what the desk
 * would never have signed counts as not said, since no table could hold it.
 */
export const signedOf = (participant: Signed) => ({
  userId: signedUserOf(participant),
  deviceId: signedAs(DeviceId, participant, attributes.device),
  loginId: signedAs(LoginId, participant, attributes.login),
  trace: signedAs(Traceparent, participant, attributes.trace),
});
