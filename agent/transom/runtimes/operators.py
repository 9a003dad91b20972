"""The operators that a model may use, as data: what turns tensors, numbers and lists into such, and nothing else.

Names in, nothing out. What is not here is refused: files, the environment, printing, randomness, other devices and
memory that was never written (`empty`, `resize_`: it may hold anything, and a model's output is published).
"""

_ELEMENTWISE = """
abs absolute acos acosh add addcdiv addcmul angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan
atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp
clamp_max clamp_min clip copysign cos cosh deg2rad digamma div divide elu erf erfc erfinv exp exp2 expm1 fill fix
float_power floor floor_divide fmax fmin fmod frac frexp gcd ge gelu glu greater greater_equal gt hardshrink
hardsigmoid hardswish hardtanh heaviside hypot i0 igamma igammac isclose isfinite isinf isnan isneginf isposinf isreal
lcm ldexp le leaky_relu lerp less less_equal lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2 logical_and
logical_not logical_or logical_xor logit lt masked_fill maximum minimum mish mul multiply nan_to_num ne neg negative
nextafter not_equal polygamma positive pow prelu rad2deg reciprocal relu relu6 remainder round rsqrt rsub selu sgn
sigmoid sign signbit silu sin sinc sinh softplus softshrink special_entr special_erf special_erfc special_erfinv
special_expit special_expm1 special_gammainc special_gammaincc special_gammaln special_log1p special_log_ndtr
special_log_softmax special_logit special_logsumexp special_ndtr special_ndtri special_sinc special_softmax
special_xlog1py special_xlogy sqrt square sub subtract tan tanh threshold true_divide trunc where xlogy eq hardtanh
"""

_IN_PLACE = """
abs_ add_ addcdiv_ addcmul_ asinh_ bitwise_and_ bitwise_not_ bitwise_or_ ceil_ clamp_ clamp_max_ clamp_min_ clip_ copy_
cos_ cumprod_ cumsum_ div_ elu_ erf_ exp_ expm1_ fill_ floor_ floor_divide_ fmod_ hardsigmoid_ hardswish_ hardtanh_
index_add_ index_copy_ index_fill_ index_put_ leaky_relu_ lerp_ log10_ log1p_ log2_ log_ logical_and_ logical_not_
logical_or_ masked_fill_ masked_scatter_ mul_ nan_to_num_ neg_ pow_ reciprocal_ relu6_ relu_ remainder_ round_ rsqrt_
scatter_ scatter_add_ selu_ sigmoid_ sign_ silu_ sin_ sqrt_ square_ squeeze_ sub_ tanh_ threshold_ transpose_ tril_
triu_ trunc_ unsqueeze_ zero_
"""

_REDUCTIONS = """
all amax amin aminmax any argmax argmin argsort bincount bucketize corrcoef count_nonzero cov cummax cummin cumprod
cumsum cumulative_trapezoid diff histc kthvalue logcumsumexp logsumexp max mean median min mode nanmean nanmedian
nanquantile nansum norm frobenius_norm prod quantile searchsorted sort std std_mean sum topk trapezoid trapz
unique_consecutive unique_dim _unique2 var var_mean log_softmax softmax
"""

_ALGEBRA = """
addbmm addmm addmv addr baddbmm bilinear bmm cdist chain_matmul cholesky_solve cosine_similarity cross det dist dot
einsum ger inner inverse kron linalg_cholesky linalg_det linalg_inv linalg_lstsq linalg_matrix_norm linalg_norm
linalg_pinv linalg_qr linalg_solve linalg_svd linalg_vector_norm linear logdet matmul matrix_exp matrix_power mm mv
outer pairwise_distance pdist pinverse renorm tensordot trace tril triu vdot
"""

_LAYERS = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d alpha_dropout avg_pool1d avg_pool2d
batch_norm constant_pad_nd conv1d conv2d conv_tbc conv_transpose1d conv_transpose2d convolution _convolution dropout
dropout_ embedding embedding_bag feature_alpha_dropout feature_dropout feature_dropout_ group_norm gru gru_cell
instance_norm layer_norm lstm lstm_cell max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices
native_layer_norm one_hot pad pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d replication_pad1d
replication_pad2d rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell rrelu scaled_dot_product_attention
upsample_linear1d upsample_nearest1d channel_shuffle im2col col2im huber_loss l1_loss mse_loss smooth_l1_loss
_pad_packed_sequence _pack_padded_sequence adaptive_avg_pool3d adaptive_max_pool3d affine_grid_generator alpha_dropout_
avg_pool3d binary_cross_entropy binary_cross_entropy_with_logits broadcast_shapes celu_ cosine_embedding_loss
conv3d conv_transpose3d cross_entropy_loss feature_alpha_dropout_ grid_sampler hinge_embedding_loss kl_div
margin_ranking_loss max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d mish_ multi_margin_loss
multilabel_margin_loss nll_loss_nd poisson_nll_loss reflection_pad3d replication_pad3d rrelu_ soft_margin_loss
triplet_margin_loss upsample_bicubic2d upsample_bilinear2d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
__interpolate __upsample _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
_native_multi_head_attention _transformer_encoder_layer_fwd _upsample_bicubic2d_aa _upsample_bilinear2d_aa
_upsample_lanczos2d_aa
"""

_SHAPES = """
alias atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cat chunk clone column_stack concat
concatenate contiguous detach diag diag_embed diagonal dsplit dstack expand expand_as fill_diagonal_ flatten flip fliplr
flipud gather hsplit hstack index index_add index_copy index_fill index_put index_select masked_scatter masked_select
meshgrid moveaxis movedim msort narrow nonzero permute ravel repeat repeat_interleave reshape reshape_as roll rot90
scatter scatter_add scatter_reduce select select_scatter slice slice_scatter split split_with_sizes squeeze stack
swapaxes swapdims t take take_along_dim tensor_split tile transpose type_as unbind unflatten unfold unsafe_chunk
unsafe_split unsqueeze view view_as vsplit vstack numpy_T
"""

_FACTORIES = """
arange as_tensor complex eye full full_like hamming_window hann_window linspace logspace new_full new_ones new_zeros
ones ones_like scalar_tensor tensor tril_indices triu_indices vander zeros zeros_like to fft_fft fft_ifft fft_irfft
fft_rfft fft_rfftfreq fft_fftfreq stft istft imag real view_as_real view_as_complex conj polar resolve_conj resolve_neg
"""

_QUESTIONS = """
allclose equal can_cast dim is_complex is_floating_point is_nonzero is_same_size item isin numel promote_types
is_autocast_enabled is_grad_enabled result_type size stride element_size is_contiguous is_signed
"""

# Numbers, strings, lists and dictionaries of the language itself; strings stay strings: `format` makes error messages,
# and `warn` stands in the compiled nn.functional.softmax.
_LANGUAGE = """
Bool Float FloatImplicit Int IntImplicit ScalarImplicit Size append clear copy count dict extend find floordiv format
__and__ __contains__ __derive_index __getitem__ __is__ __isnot__ __not__ __or__ __range_length
__round_to_zero_floordiv __xor__ _set_item Delete divmod fabs factorial get insert items join keys len list lower
mathremainder modf ord percentFormat pop radians degrees range remove reverse warn setdefault sorted startswith
endswith str strip update upper values
"""

# `torch.NAME(...)`, and `(tensor).NAME(...)`.
TORCH = frozenset(
    " ".join(
        [_ELEMENTWISE, _IN_PLACE, _REDUCTIONS, _ALGEBRA, _LAYERS, _SHAPES, _FACTORIES, _QUESTIONS, _LANGUAGE]
    ).split()
)

# `ops.NAME(...)`: the compiler's own. RaiseException ends the call with an error, which the runtime reports.
_COMPILER = """
RaiseException NumToTensor TupleIndex TupleUnpack EnumName EnumValue Uninitialized unchecked_cast
unchecked_unwrap_optional abs device dtype is_cpu is_cuda is_meta is_mkldnn is_mps is_nested is_quantized is_sparse
layout max min rangelist requires_grad data itemsize nbytes tolist type ndim shape ConstantChunk
"""
OPS = frozenset(f"prim.{name}" for name in _COMPILER.split())

_PLAIN_CALLS = """
annotate unchecked_cast uninitialized int float bool str range getattr isinstance len list tuple dict min max abs round
enumerate zip sorted
"""
CALLS = frozenset(_PLAIN_CALLS.split())

_TYPES = """
Tensor int float bool str complex number Device NoneType Any List Dict Tuple Optional Union Final Layout Module
NamedTuple Enum
"""
TYPES = frozenset(_TYPES.split())

# Special methods that a class in a model file may define; __getstate__ and __setstate__ would run while it loads.
SPECIAL_METHODS = frozenset({"__init__", "__len__", "__getitem__", "__contains__", "__call__"})

# What the pickles of a model file may name, beside the classes of its own code.
PICKLED = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch device"}
    | {f"torch.jit._pickle {name}" for name in (
        "build_intlist", "build_tensorlist", "build_doublelist", "build_boollist",
        "build_tensor_from_id", "restore_type_tag",
    )}
    | {f"torch {kind}Storage" for kind in (
        "Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "ComplexFloat",
        "ComplexDouble",
    )}
)  # fmt: skip
