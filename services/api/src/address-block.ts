import { isIPv6, SocketAddress } from 'node:net';

const mapped = '::ffff:';
const groupCount = 8;
/** What a translator puts before an IPv4 address (RFC 6052). */
const translated = '64:ff9b:0:0:0:0:';

/** As some proxies write an address: `192.0.2.1:5000`, `[2001:db8::1]:443`, `[2001:db8::1]`. */
const withPortOrBrackets = /^(?:([^:]*):\d+|\[(.*)\](?::\d+)?)$/;

/**
 * Whom an address is counted as: an IPv4 address is one, of an IPv6 address whoever has the first 64 bits has all the
 * others. Who has reset the connection by now has none any more, whatever Fastify's types say: all of them are one.
 */
export const addressBlockOf = (written: string | undefined): string => {
  if (written === undefined) return '';
  if (!written.includes(':')) return written;
  const address = written.replace(withPortOrBrackets, '$1$2');
  if (!isIPv6(address)) return address;
  const canonical = new SocketAddress({ address, family: 'ipv6' }).address;
  if (canonical.startsWith(mapped) && canonical.includes('.')) return canonical.slice(mapped.length);
  const [left = [], right = []] = canonical.split('::').map((half) => half.split(':').filter((group) => group !== ''));
  const zeros = Array<string>(groupCount - left.length - right.length).fill('0');
  const groups = [...left, ...zeros, ...right];
  const whole = groups.join(':');
  return whole.startsWith(translated) ? whole : `${groups.slice(0, groupCount / 2).join(':')}::/64`;
};
