import { attributes, permissionsOf, toVideoGrant } from '@realtime-service/room-model';
import { AccessToken, TrackSource } from 'livekit-server-sdk';
import { livekitKey } from './system.ts';

/**
 * A LiveKit token as a join of a speaker gives it, for people whom no issuer knows; of one device where it is named.
 */
export const speakerToken = (room: string, user: string, device?: string): Promise<string> => {
  const token = new AccessToken(livekitKey.apiKey, livekitKey.secret, {
    identity: device === undefined ? user : `${user}:${device}`,
    ttl: 600,
    attributes: { [attributes.user]: user, ...(device !== undefined && { [attributes.device]: device }) },
  });
  const { canPublishSources: _, ...grant } = toVideoGrant(room, permissionsOf('speaker', null, []));
  token.addGrant({ ...grant, canPublishSources: [TrackSource.CAMERA, TrackSource.MICROPHONE] });
  return token.toJwt();
};
