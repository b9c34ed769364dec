import { createHmac } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { createHs256Signer } from './hs256-signer.ts';

/** Of one, of about a block of the hash, and of more; and one whose characters take several bytes. */
const secrets = [1, 63, 64, 65, 200].map((length) => 'secret'.repeat(length).slice(0, length)).concat('schlüssel🗝️');
/** Growing and shrinking: what was signed before must not be seen in what follows. */
const payloads = [0, 700, 1, 9_000, 700, 3_000, 55].map((length) => '{"näme":"🦊"}'.repeat(length).slice(0, length));

describe.each(secrets)('with the secret %s', (secret) => {
  test('tokens are signed as HMAC says', () => {
    const sign = createHs256Signer(secret);
    for (const payload of payloads) {
      const [header = '', body = '', signature] = sign(payload).split('.');
      expect(JSON.parse(Buffer.from(header, 'base64url').toString())).toEqual({ alg: 'HS256' });
      expect(Buffer.from(body, 'base64url')).toEqual(Buffer.from(payload));
      expect(signature).toBe(createHmac('sha256', secret).update(`${header}.${body}`).digest('base64url'));
    }
  });
});
