/* Blocks of channels, whatever the table. */
#ifndef LC_KERNELS_BLOCK_H
#define LC_KERNELS_BLOCK_H

#define LC_MAX_BLOCK 16 /* channels of the largest block: AVX-512's */

#endif
